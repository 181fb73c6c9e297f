// Command promcheck checks and evaluates its standard input with the packages of Prometheus.
//
//	promcheck metrics   prints the findings of "promtool check metrics" for an exposition; exits with 3 if there are any
//	promcheck queries   prints the metric names in each expression of a JSON list of PromQL expressions
//	promcheck rules     prints the findings of "promtool check rules" for a rule file; exits with 3 if there are any
//	promcheck evaluate  prints the results of range queries over given series (evaluate.go)
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
)

func main() {
	run := metrics
	if len(os.Args) == 2 {
		run = map[string]func() error{"metrics": metrics, "queries": queries, "rules": rules, "evaluate": evaluate}[os.Args[1]]
	}
	err := run()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func metrics() error {
	problems, err := promlint.New(os.Stdin).Lint()
	if err != nil {
		return err
	}
	for _, problem := range problems {
		fmt.Println(problem.Metric, problem.Text)
	}
	if len(problems) > 0 {
		os.Exit(3)
	}
	return nil
}

func queries() error {
	var texts []string
	if err := json.NewDecoder(os.Stdin).Decode(&texts); err != nil {
		return err
	}
	found := make([][]string, len(texts))
	for i, text := range texts {
		expression, err := parser.NewParser(parser.Options{}).ParseExpr(text)
		if err != nil {
			return fmt.Errorf("%s: %w", text, err)
		}
		found[i] = []string{}
		parser.Inspect(expression, func(node parser.Node, _ []parser.Node) error {
			if selector, ok := node.(*parser.VectorSelector); ok {
				found[i] = append(found[i], selector.Name)
			}
			return nil
		})
	}
	return json.NewEncoder(os.Stdout).Encode(found)
}

func rules() error {
	text, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	_, problems := rulefmt.Parse(text, false, model.UTF8Validation, parser.NewParser(parser.Options{}), slog.Default())
	for _, problem := range problems {
		fmt.Println(problem)
	}
	if len(problems) > 0 {
		os.Exit(3)
	}
	return nil
}
