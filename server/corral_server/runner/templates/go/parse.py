"""Parser of Go templates.

Supported: text, comments, trim markers, ``if``, ``range``, ``with``, ``else`` and its chains, ``end``, ``break``,
``continue``, variables, pipelines, fields, and the functions of ``functions.NAMES``. Any other construct is refused by
name.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import islice

from corral_server.runner.templates.go.functions import NAMES
from corral_server.runner.templates.go.nodes import (
    Action,
    Block,
    Field,
    FunctionCall,
    Literal,
    LoopControl,
    Node,
    Operand,
    Pipeline,
    Text,
)
from corral_server.runner.templates.go.tokens import Token, UnsupportedTemplate, tokenize
from corral_server.runner.templates.limits import MAX_TEMPLATE_WORDS, check_characters, check_words

_BLOCKS = ("if", "range", "with")
_REFUSED = ("define", "template", "block")
_MAX_DEPTH = 60
_MAX_TOKENS = 3 * MAX_TEMPLATE_WORDS
"""Every opening mark is a word and has a closing mark and a text at most."""
_CONSTANTS = {"true": True, "false": False, "nil": None}


def parse(source: str) -> tuple[Node, ...]:
    """Raises UnsupportedTemplate, whose message names the construct, and TemplateLimit for a template too large."""
    check_characters(source)
    tokens = list(islice(tokenize(source), _MAX_TOKENS + 1))
    check_words(sum(token.kind not in ("text", "close") for token in tokens))
    parser = _TemplateParser(tokens)
    nodes, ended = parser.nodes()
    if ended:
        raise UnsupportedTemplate(f"{{{{ {ended} }}}} without a beginning")
    return nodes


class _TemplateParser:
    def __init__(self, found: Sequence[Token]) -> None:
        self._tokens = found
        self._at = 0
        self._depth = 0

    def nodes(self) -> tuple[tuple[Node, ...], str]:
        """The nodes up to ``else`` or ``end``, which is taken and returned, or to the end of the source."""
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise UnsupportedTemplate(f"more than {_MAX_DEPTH} levels of blocks")
        found: list[Node] = []
        while (token := self._peek()) is not None:
            self._at += 1
            if token.kind == "text":
                found.append(Text(token.text))
                continue
            word = self._peek_word()
            if word in ("else", "end"):
                self._at += 1
                self._depth -= 1
                return tuple(found), word
            found.append(self._action(word))
        self._depth -= 1
        return tuple(found), ""

    def _action(self, word: str) -> Node:
        """After the opening mark."""
        if word in _REFUSED:
            raise UnsupportedTemplate("{{" + self._rest())
        if word in _BLOCKS:
            self._at += 1
            return self._block(word)
        if word in ("break", "continue"):
            self._at += 1
            self._close()
            return LoopControl(word)
        variables, declares = self._declared()
        pipeline = self._pipeline()
        self._close()
        return Action(pipeline, variables[0] if variables else "", declares)

    def _block(self, kind: str) -> Block:
        variables, declares = self._declared()
        if variables and not declares:
            raise UnsupportedTemplate(f"{{{{ {kind} {variables[0]} =")
        pipeline = self._pipeline()
        self._close()
        body, ended = self.nodes()
        otherwise: tuple[Node, ...] = ()
        if ended == "else":
            otherwise = self._else(kind)
        elif ended == "end":
            self._close()
        else:
            raise UnsupportedTemplate(f"{{{{ {kind} }}}} without {{{{ end }}}}")
        return Block(kind, pipeline, variables, body, otherwise)

    def _else(self, kind: str) -> tuple[Node, ...]:
        """After ``else``: another block that ends with this one, or nodes up to ``end``."""
        word = self._peek_word()
        if word in ("if", "with"):
            self._at += 1
            self._depth += 1
            if self._depth > _MAX_DEPTH:
                raise UnsupportedTemplate(f"more than {_MAX_DEPTH} levels of blocks")
            chained = self._block(word)
            self._depth -= 1
            return (chained,)
        self._close()
        nodes, ended = self.nodes()
        if ended != "end":
            raise UnsupportedTemplate(f"{{{{ {kind} }}}} without {{{{ end }}}}")
        self._close()
        return nodes

    def _declared(self) -> tuple[tuple[str, ...], bool]:
        """``$x :=``, ``$i, $x :=`` or ``$x =`` at the start of a pipeline, where it is there."""
        start, names = self._at, list[str]()
        while (token := self._peek()) is not None and token.kind == "variable":
            names.append(token.text)
            self._at += 1
            mark = self._peek()
            if mark is not None and mark.text in (":=", "="):
                self._at += 1
                return tuple(names), mark.text == ":="
            if mark is None or mark.text != ",":
                break
            self._at += 1
        self._at = start
        return (), False

    def _pipeline(self) -> Pipeline:
        commands = [self._command()]
        while self._taken("|"):
            commands.append(self._command())
        return Pipeline(tuple(commands))

    def _command(self) -> Operand:
        token = self._peek()
        if token is not None and token.kind == "word" and token.text not in _CONSTANTS:
            self._at += 1
            if token.text not in NAMES:
                raise UnsupportedTemplate(f"{{{{ {token.text} }}}}")
            return FunctionCall(token.text, tuple(self._operands()))
        operand = self._operand()
        if (more := self._peek()) is not None and (more.kind not in ("close", "mark") or more.text in ("(", ".")):
            raise UnsupportedTemplate(f"{{{{ {token.text if token else ''}{self._rest()}")
        return operand

    def _operands(self) -> list[Operand]:
        found = []
        while (token := self._peek()) is not None and (token.kind not in ("close", "mark") or token.text in ("(", ".")):
            found.append(self._operand())
        return found

    def _operand(self) -> Operand:
        token = self._next()
        if token.kind == "string":
            return Literal(_string(token.text))
        if token.kind == "number":
            return Literal(float(token.text) if "." in token.text else int(token.text[:20]))
        if token.kind == "field":
            return Field((token.text[1:], *self._names()))
        if token.kind == "variable":
            return Field(tuple(self._names()), token.text)
        if token.kind == "word":
            return self._word(token.text)
        if token.text == ".":
            return Field(())
        if token.text == "(":
            return self._parenthesis()
        raise UnsupportedTemplate(f"{{{{ {token.text}{self._rest()}")

    def _word(self, word: str) -> Operand:
        if word in _CONSTANTS:
            return Literal(_CONSTANTS[word])
        if word in NAMES:
            return FunctionCall(word, ())
        raise UnsupportedTemplate(f"{{{{ {word} }}}}")

    def _parenthesis(self) -> Operand:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise UnsupportedTemplate(f"more than {_MAX_DEPTH} levels of parentheses")
        inner = self._pipeline()
        self._depth -= 1
        if not self._taken(")"):
            raise UnsupportedTemplate("a parenthesis without its end")
        names = tuple(self._names())
        return Field(names, base=inner) if names else inner

    def _names(self) -> list[str]:
        """The fields that follow without white space."""
        names = []
        while (token := self._peek()) is not None and token.kind == "field" and token.joined:
            names.append(token.text[1:])
            self._at += 1
        return names

    def _peek(self) -> Token | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _peek_word(self) -> str:
        token = self._peek()
        return token.text if token is not None and token.kind == "word" else ""

    def _next(self) -> Token:
        token = self._peek()
        if token is None:
            raise UnsupportedTemplate("an action without its end")
        self._at += 1
        return token

    def _taken(self, mark: str) -> bool:
        token = self._peek()
        if token is None or token.kind != "mark" or token.text != mark:
            return False
        self._at += 1
        return True

    def _close(self) -> None:
        token = self._next()
        if token.kind != "close":
            raise UnsupportedTemplate(f"{{{{ ... {token.text}{self._rest()}")

    def _rest(self) -> str:
        """The next words of the action, for the text of an error."""
        words = []
        for token in self._tokens[self._at : self._at + 6]:
            if token.kind == "close":
                break
            words.append(token.text)
        return " " + " ".join(words) + " }}" if words else " }}"


def _string(text: str) -> str | int:
    """Go's escapes are those of JSON, but for a few that no template needs; a character is its number."""
    if text.startswith("`"):
        return text[1:-1]
    quoted = text if text.startswith('"') else '"' + text[1:-1].replace("\\'", "'").replace('"', '\\"') + '"'
    try:
        value: str = json.loads(quoted, strict=False)
    except ValueError:
        raise UnsupportedTemplate(text[:40]) from None
    if text.startswith("'"):
        if len(value) != 1:
            raise UnsupportedTemplate(text[:40])
        return ord(value)
    return value
