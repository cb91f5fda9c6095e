"""The text of a model file, formatted as by `ruff format` and safe from injection by the CSV.

All text of the CSV enters the file through `literal` (as a Python string) or `comment` (printable characters
only).
"""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Final

from vigia_ml.declaration import PRIMARY, Task
from vigia_ml.scaffold.proposal import Planned, Proposal
from vigia_ml.schema import Column

WIDTH: Final = 110
STEP: Final = "    "
LEAST: Final[dict[Task, tuple[str, float]]] = {
    "binary": ("roc_auc", 0.6),
    # A good accuracy depends on the shares of the classes; the area does not.
    "multiclass": ("roc_auc", 0.6),
    "regression": ("r2", 0.1),
}
ROWS_FOR_DEFAULTS: Final = 1_000


def render(proposal: Proposal, csv_name: str, *, drop_duplicates: bool = False) -> str:
    """Returns the text of the file.

    Parameters
    ----------
    csv_name : the CSV's name, for a comment. drop_duplicates : value that the file declares.
    """
    lines = [*_head(proposal, csv_name), *_schema(proposal), *_build(proposal)]
    lines += _model(proposal, drop_duplicates)
    if any(_is_overlong(line) for line in lines):
        lines.insert(1, "# ruff: noqa: E501 (names and levels are unchanged)")
    return "\n".join(lines) + "\n"


# -- Python text ---------------------------------------------------------------------------------------


def literal(value: object) -> str:
    """Returns a str, bool, int, float, None or tuple as Python source in the formatter's style."""
    if isinstance(value, tuple):
        inside = ", ".join(literal(each) for each in value)
        return f"({inside},)" if len(value) == 1 else f"({inside})"
    if not isinstance(value, str):
        return repr(value)
    # repr() escapes characters that are not printable; quotation marks are escaped below.
    quote = "'" if value.count('"') > value.count("'") else '"'
    plain = "".join(repr(character)[1:-1] if character not in "'\"" else character for character in value)
    return quote + plain.replace(quote, "\\" + quote) + quote


def comment(text: str, indent: str = "") -> list[str]:
    """Returns `text` as comment lines; characters that are not printable are escaped."""
    safe = "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
    room = WIDTH - len(indent) - 2
    wide = _width(safe) > len(safe)
    wrapped = textwrap.wrap(safe, room // 2 if wide else room, subsequent_indent="  ") or [""]
    return [f"{indent}# {line}".rstrip() for line in wrapped]


def call(head: str, arguments: Sequence[tuple[str, object]], indent: str) -> list[str]:
    """Returns ``head(…),`` on one line if it fits, else with one argument per line."""
    parts = [f"{name}={literal(value)}" if name else literal(value) for name, value in arguments]
    line = f"{indent}{head}({', '.join(parts)}),"
    if _fits(line):
        return [line]
    inner = indent + STEP
    lines = [f"{indent}{head}("]
    for (name, value), part in zip(arguments, parts, strict=True):
        if isinstance(value, tuple) and not _stays(f"{inner}{part},", value):
            lines += [f"{inner}{name}=(", *(f"{inner}{STEP}{literal(each)}," for each in value), f"{inner}),"]
        else:
            lines.append(f"{inner}{part},")
    return [*lines, f"{indent}),"]


def _fits(line: str) -> bool:
    # Text that is not ASCII may be wider than its length: it gets the long layout.
    return line.isascii() and len(line) <= WIDTH


def _stays(line: str, items: tuple[object, ...]) -> bool:
    """Returns whether a tuple may stay on its line; the formatter joins a single item wherever it fits."""
    return _width(line) <= WIDTH if len(items) == 1 else _fits(line)


def _width(line: str) -> int:
    """Returns the width of a line in screen columns."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line
    )


def _is_overlong(line: str) -> bool:
    """Returns whether the linter reports the line; it allows lines of one word, which cannot be broken."""
    words = line.split()
    return _width(line) > WIDTH and len(words) > 1 and "://" not in words[-1]


# -- the parts of the file -----------------------------------------------------------------------------


def _head(proposal: Proposal, csv_name: str) -> list[str]:
    origin = f"Written by `manage.py startmodel` from {csv_name} ({proposal.rows:,} rows); edit it freely."
    return [
        f'"""The model {proposal.name}: read and correct it, above all the lines marked "guessed"."""',
        "",
        *comment(origin),
        *comment("What to check, and how to change a model that has versions: docs/adding-a-model.md."),
        "",
        "from __future__ import annotations",
        "",
        "from typing import Any",
        "",
        "from vigia_ml import Column, DatasetSchema, Gate, ModelDeclaration",
        "",
    ]


def _schema(proposal: Proposal) -> list[str]:
    lines = [
        "# Fill in what each column means (description) and its unit: the API's documentation shows both.",
        "SCHEMA = DatasetSchema(",
        f"{STEP}columns=(",
    ]
    for planned in proposal.features:
        lines += _column(planned, STEP * 2)
    lines.append(f"{STEP}),")
    lines += _column(proposal.target, STEP, "target=Column")
    if proposal.key is not None:
        lines.append(f"{STEP}key={literal(proposal.key)},  # logged with each prediction; no feature")
    if proposal.weight is not None:
        lines.append(f"{STEP}weight={literal(proposal.weight)},  # weighs the rows in training; no feature")
    if proposal.left_out:
        lines += comment("Accepted and ignored, so that clients can send rows of the CSV unchanged.", STEP)
        lines.append(f"{STEP}ignored=(")
        for planned in proposal.left_out:
            lines += comment(f"guessed: {'; '.join(planned.remarks)}", STEP * 2)
            lines.append(f"{STEP * 2}{literal(planned.source)},")
        lines.append(f"{STEP}),")
    return [*lines, ")", "", ""]


def _column(planned: Planned, indent: str, head: str = "Column") -> list[str]:
    column = planned.column
    assert column is not None
    lines = comment(f"guessed: {'; '.join(planned.remarks)}", indent)
    if planned.suspicion:
        lines += comment(f"SUSPICIOUS: {planned.suspicion}", indent)
    return lines + call(head, _arguments(column), indent)


def _arguments(column: Column) -> list[tuple[str, object]]:
    arguments: list[tuple[str, object]] = [("", column.name), ("", column.type), ("description", "")]
    if column.is_numeric:
        arguments.append(("unit", ""))
    for item in fields(Column):
        value = getattr(column, item.name)
        if item.name not in ("name", "type", "description", "unit", "seen") and value != item.default:
            arguments.append((item.name, value))
    return arguments


def _build(proposal: Proposal) -> list[str]:
    has_texts = any(planned.column and planned.column.type == "text" for planned in proposal.features)
    dates = [planned.column for planned in proposal.features if planned.column and planned.column.is_temporal]
    model = f"HistGradientBoosting{'Regressor' if proposal.task == 'regression' else 'Classifier'}"
    leaf = ""
    leaf_comment: list[str] = []
    if proposal.rows < ROWS_FOR_DEFAULTS:
        leaf = f", min_samples_leaf={max(2, proposal.rows // 50)}"
        many = f"too many for {proposal.rows:,} rows: remove this as data grows."
        leaf_comment = [f"# scikit-learn's 20 rows per leaf are {many}"]
    imports = [
        "from sklearn.compose import ColumnTransformer",
        *(["from sklearn.decomposition import TruncatedSVD"] if has_texts else []),
        f"from sklearn.ensemble import {model}",
        *(["from sklearn.feature_extraction.text import TfidfVectorizer"] if has_texts else []),
        f"from sklearn.pipeline import Pipeline{', make_pipeline' if has_texts else ''}",
        "from sklearn.preprocessing import OrdinalEncoder",
        *([""] if dates or has_texts else []),
        *(["from vigia_ml.transformers.dates import DateParts"] if dates else []),
        *(["from vigia_ml.transformers.text_column import TextColumn"] if has_texts else []),
    ]
    # So many components are fewer than the terms of any column that the survey takes for text.
    components = max(2, min(16, proposal.rows // 10))
    body = [
        *imports,
        "",
        'unchanged = ("number", "integer", "boolean")',
        "numbers = [column.name for column in SCHEMA.columns if column.type in unchanged]",
        'categories = [column.name for column in SCHEMA.columns if column.type == "category"]',
        "# Unknown levels become NaN: -1 would make them neighbours of the first level.",
        'codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=float("nan"))',
        *_date_lines(dates),
        *_parts(components if has_texts else 0, bool(dates)),
        *leaf_comment,
        f"model = {model}(early_stopping=False{leaf}, random_state=seed)",
        'return Pipeline([("features", ColumnTransformer(parts)), ("model", model)])',
    ]
    texts = f"texts as {components} numbers, " if has_texts else ""
    texts = ("dates as parts, " if dates else "") + texts
    docstring = f"Numbers unchanged (a blank is NaN), categories as codes, {texts}gradient-boosted trees."
    return [
        "def build(seed: int) -> Any:",
        f'{STEP}"""{docstring}"""',
        *(f"{STEP}{line}" if line else "" for line in body),
        "",
        "",
    ]


def _date_lines(dates: Sequence[Column]) -> list[str]:
    if not dates:
        return []
    hour = ', "hour"' if any(column.type == "datetime" for column in dates) else ""
    return [
        "# age_days are days since 1970: give DateParts a reference to count from another day.",
        f'date_parts = DateParts(("age_days", "month", "weekday"{hour}))',
        "dates = [column.name for column in SCHEMA.columns if column.is_temporal]",
    ]


def _parts(components: int, has_dates: bool) -> list[str]:
    parts = ['("numbers", "passthrough", numbers)', '("categories", codes, categories)']
    parts += ['("dates", date_parts, dates)'] if has_dates else []
    head = "parts: list[Any] = [" if components else "parts = ["
    line = f"{head}{', '.join(parts)}]"
    lines = [line] if _fits(STEP + line) else [head, *(f"{STEP}{part}," for part in parts), "]"]
    if not components:
        return lines
    return [
        *lines,
        "for column in SCHEMA.columns:",
        f'{STEP}if column.type == "text":',
        f"{STEP * 2}# Words and pairs of words; a missing text is a word of its own.",
        f'{STEP * 2}texts = TextColumn(missing="__missing__")',
        f"{STEP * 2}words = TfidfVectorizer(",
        f'{STEP * 3}token_pattern=r"(?u)\\b\\w+\\b",  # noqa: S106 - no secret',
        f"{STEP * 3}ngram_range=(1, 2),",
        f"{STEP * 3}max_features=20_000,",
        f"{STEP * 2})",
        f"{STEP * 2}shrunk = make_pipeline(texts, words, TruncatedSVD({components}, random_state=seed))",
        f'{STEP * 2}parts.append((f"words of {{len(parts)}}", shrunk, column.name))',
    ]


def _model(proposal: Proposal, drop_duplicates: bool) -> Iterable[str]:
    metric, least = LEAST[proposal.task]
    title = proposal.name.replace("_", " ").capitalize()
    described = f"Predicts {proposal.target.source} from {len(proposal.features)} columns."
    inner = [
        f"name={literal(proposal.name)},",
        f"title={literal(title)},",
        f"description={literal(described)},",
        f"task={literal(proposal.task)},",
        "schema=SCHEMA,",
        "build=build,",
        f"primary_metric={literal(PRIMARY[proposal.task])},",
        "# A low minimum: raise it to the quality you need. Each version must also beat the baseline.",
        f"gate=Gate(minimum={{{literal(metric)}: {least!r}}}, max_regression=0.02),",
        '# "manual": the admin decides about each new version; "if_better" leaves it to the gate.',
        'policy="manual",',
    ]
    if drop_duplicates:
        inner.append("drop_duplicates=True,  # --drop-duplicates: a repeated row lists the same thing twice")
    return ["MODEL = ModelDeclaration(", *(f"{STEP}{line}" for line in inner), ")"]
