package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"
)

// Times are in seconds. Values are strings, because JSON has no NaN and Inf.
type point struct {
	At    float64 `json:"at"`
	Value string  `json:"value"`
}

type series struct {
	Labels map[string]string `json:"labels"`
	Points []point           `json:"points"`
}

type rangeQuery struct {
	Query string  `json:"query"`
	Start float64 `json:"start"`
	End   float64 `json:"end"`
	Step  float64 `json:"step"`
}

func evaluate() error {
	var request struct {
		Series  []series     `json:"series"`
		Queries []rangeQuery `json:"queries"`
	}
	if err := json.NewDecoder(os.Stdin).Decode(&request); err != nil {
		return err
	}
	storage, err := newMemory(request.Series)
	if err != nil {
		return err
	}
	engine := promql.NewEngine(promql.EngineOpts{
		MaxSamples:    10_000_000,
		Timeout:       time.Minute,
		LookbackDelta: 5 * time.Minute,
		Parser:        parser.NewParser(parser.Options{}),
	})
	results := make([][]series, len(request.Queries))
	for i, each := range request.Queries {
		if results[i], err = evaluateQuery(engine, storage, each); err != nil {
			return fmt.Errorf("%s: %w", each.Query, err)
		}
	}
	return json.NewEncoder(os.Stdout).Encode(results)
}

func evaluateQuery(engine *promql.Engine, storage *memory, request rangeQuery) ([]series, error) {
	step := time.Duration(request.Step * float64(time.Second))
	query, err := engine.NewRangeQuery(context.Background(), storage, nil, request.Query, moment(request.Start), moment(request.End), step)
	if err != nil {
		return nil, err
	}
	defer query.Close()
	matrix, err := query.Exec(context.Background()).Matrix()
	if err != nil {
		return nil, err
	}
	found := []series{}
	for _, one := range matrix {
		result := series{Labels: one.Metric.Map()}
		for _, sample := range one.Floats {
			text := strconv.FormatFloat(sample.F, 'g', -1, 64)
			result.Points = append(result.Points, point{float64(sample.T) / 1000, text})
		}
		found = append(found, result)
	}
	return found, nil
}

func moment(seconds float64) time.Time {
	return time.UnixMilli(int64(seconds * 1000)).UTC()
}

// memory is a storage.Queryable over given series.
type memory struct {
	kept []kept
}

type kept struct {
	labels  labels.Labels
	samples []chunks.Sample
}

func newMemory(given []series) (*memory, error) {
	made := &memory{}
	for _, each := range given {
		one := kept{labels: labels.FromMap(each.Labels)}
		for _, at := range each.Points {
			value, err := strconv.ParseFloat(at.Value, 64)
			if err != nil {
				return nil, err
			}
			one.samples = append(one.samples, sample{int64(at.At * 1000), value})
		}
		made.kept = append(made.kept, one)
	}
	return made, nil
}

func (m *memory) Querier(_, _ int64) (storage.Querier, error) {
	return m, nil
}

func (m *memory) Select(_ context.Context, _ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	found := &set{at: -1}
	for _, one := range m.kept {
		if matches(one.labels, matchers) {
			found.all = append(found.all, storage.NewListSeries(one.labels, one.samples))
		}
	}
	return found
}

func matches(of labels.Labels, matchers []*labels.Matcher) bool {
	for _, each := range matchers {
		if !each.Matches(of.Get(each.Name)) {
			return false
		}
	}
	return true
}

func (m *memory) LabelValues(context.Context, string, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return nil, nil, nil
}

func (m *memory) LabelNames(context.Context, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return nil, nil, nil
}

func (m *memory) Close() error {
	return nil
}

type set struct {
	all []storage.Series
	at  int
}

func (s *set) Next() bool {
	s.at++
	return s.at < len(s.all)
}

func (s *set) At() storage.Series                { return s.all[s.at] }
func (s *set) Err() error                        { return nil }
func (s *set) Warnings() annotations.Annotations { return nil }

type sample struct {
	t int64
	v float64
}

func (s sample) T() int64                      { return s.t }
func (s sample) ST() int64                     { return 0 }
func (s sample) F() float64                    { return s.v }
func (s sample) H() *histogram.Histogram       { return nil }
func (s sample) FH() *histogram.FloatHistogram { return nil }
func (s sample) Type() chunkenc.ValueType      { return chunkenc.ValFloat }
func (s sample) Copy() chunks.Sample           { return s }
