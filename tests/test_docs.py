"""Documentation and code agree, in both directions."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml
from rest_framework import serializers

from predictions.serializers import rollouts
from tools.samples import __main__ as samples
from training import serializers as training_serializers
from training.models import RegisteredModel
from training.runs import uploads
from training.serializers import InstanceSerializer

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md")])
ROOMS = ("config", "web", "recommender", "predictions", "training", "backups", "core", "vigia_ml")

CODE = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
VARIABLE = re.compile(r"[A-Z][A-Z0-9_]+")

# Which argument of a call holds an error code: by name of the function, counted from 0.
CODE_ARGUMENT = {
    "Fault": 1,
    "single": 1,
    "_bad": 0,
    "_body": 0,
    "Unreadable": 0,
    "_refuse": 2,
    "with_fault": 1,
    "answer": 2,
    "_bad_request": 0,
}
# Names of constants that hold codes.
CODE_DICTIONARIES = {"codes", "names", "UNREADABLE"}
# Functions that return the code of a warning.
CODE_FUNCTIONS = {"warning"}


def sources(*rooms: str) -> Iterator[tuple[Path, ast.Module]]:
    for room in rooms:
        place = ROOT / room
        for path in [place] if place.is_file() else sorted(place.rglob("*.py")):
            if "migrations" not in path.relative_to(ROOT).parts:
                yield path, parsed(path)


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def table_words(page: Path, pattern: re.Pattern[str], *, under: str | None = None) -> dict[str, str]:
    """Returns first cell -> rest of the row, for rows whose first cell is one word in code marks."""
    cells: dict[str, str] = {}
    heading = ""
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        row = re.fullmatch(rf"\| `({pattern.pattern})` \|(.*)\|", line)
        if row and (under is None or heading == under):
            assert row[1] not in cells, f"{page.name} lists {row[1]} twice"
            cells[row[1]] = row[2]
    return cells


# -- error codes ---------------------------------------------------------------------------------------


def name_of(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def words_in(node: ast.AST | None) -> Iterator[str]:
    """Yields the possible strings of an expression: itself, or the branches of a condition."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and CODE.fullmatch(node.value):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from words_in(node.body)
        yield from words_in(node.orelse)
    elif isinstance(node, ast.Tuple):  # (code, message)
        yield from words_in(node.elts[0])


def codes_of(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Call():
                for keyword in node.keywords:
                    if keyword.arg == "code":
                        yield from words_in(keyword.value)
                place = CODE_ARGUMENT.get(name_of(node))
                if place is not None and len(node.args) > place:
                    yield from words_in(node.args[place])
            case (
                ast.Assign(targets=[ast.Name(id="code")], value=value)
                | ast.Assign(targets=[ast.Tuple(elts=[ast.Name(id="code"), *_])], value=value)
            ):
                yield from words_in(value)
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=ast.Dict() as value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.Dict() as value)
            ):
                if name in CODE_DICTIONARIES:
                    for item in value.values:
                        yield from words_in(item)
            case ast.Dict():
                for key, item in zip(node.keys, node.values, strict=True):
                    if isinstance(key, ast.Constant) and key.value == "code":
                        yield from words_in(item)
            case ast.FunctionDef(name=name) if name in CODE_FUNCTIONS:
                for inner in ast.walk(node):
                    if isinstance(inner, ast.Return):
                        yield from words_in(inner.value)


@cache
def codes_in_code() -> dict[str, str]:
    """Returns code -> a file that uses it."""
    return {
        code: str(path.relative_to(ROOT))
        for path, tree in sources(*ROOMS)
        if not {"management", "admin"} & set(path.relative_to(ROOT).parts) and path.name != "checks.py"
        for code in codes_of(tree)
    }


def codes_of_our_serializers() -> dict[str, str]:
    """Returns DRF's codes that serializers of ours can return."""
    renamed = {"required", "null", "blank"}
    by_code: dict[str, str] = {}
    for kind in (
        training_serializers.ReasonSerializer,
        training_serializers.ActivateSerializer,
        rollouts.StartSerializer,
        rollouts.RaiseSerializer,
    ):
        assert not issubclass(kind, InstanceSerializer)
        for field in (serializers.Serializer(), *kind().fields.values()):
            for code in (*field.error_messages, *(getattr(v, "code", "") for v in field.validators)):
                if code and code not in renamed:
                    by_code[code] = kind.__name__
    return by_code


def codes_of_the_proxy() -> dict[str, str]:
    text = (ROOT / "docker" / "proxy" / "Caddyfile").read_text(encoding="utf-8")
    return dict.fromkeys(re.findall(r'"code": "(\w+)"', text), "Caddyfile")


def test_every_error_code_is_explained() -> None:
    explained = table_words(DOCS / "errors.md", CODE)
    missing = {**codes_of_our_serializers(), **codes_in_code(), **codes_of_the_proxy()}
    assert not {code: place for code, place in missing.items() if code not in explained}, "not in errors.md"


def test_every_explained_error_code_exists() -> None:
    known = codes_in_code() | codes_of_our_serializers() | codes_of_the_proxy()
    assert not set(table_words(DOCS / "errors.md", CODE)) - set(known), (
        "errors.md explains codes that do not exist"
    )


def test_every_request_level_error_code_has_a_status() -> None:
    for code, rest in table_words(DOCS / "errors.md", CODE, under="Refusals").items():
        assert re.match(r" [1-5]\d\d ", rest), code


@pytest.mark.parametrize(
    ("source", "codes"),
    [
        ('Fault("a", "not_a_number", "m")', ["not_a_number"]),
        ('raise Conflict("message", code="already_active")', ["already_active"]),
        ('class A(B):\n    code = "conflict"', ["conflict"]),
        ('code, message = "too_long", f"at most {n} characters"', ["too_long"]),
        ('_body("a" if x else "b", "message")', ["a", "b"]),
        ('{"code": "truncated_here"}', ["truncated_here"]),
        ('self._refuse(request, 415, "unsupported_encoding", "said")', ["unsupported_encoding"]),
        ('def warning(v):\n    return None if v else "out_of_range"', ["out_of_range"]),
        ('codes = {403: "forbidden"}', ["forbidden"]),
        ('raise ValueError("no code")', []),
    ],
)
def test_codes_are_found_in_every_form(source: str, codes: list[str]) -> None:
    assert list(codes_of(ast.parse(source))) == codes


# -- environment variables -----------------------------------------------------------------------------

READERS = {"text", "flag", "number", "words", "networks", "folders", "from_stack", "is_configured"}
NOT_OURS = {"PATH"}


def variables_of(tree: ast.AST) -> Iterator[str]:
    """Names read through core.env, os.environ or local.stack.is_configured."""
    for node in ast.walk(tree):
        argument: ast.AST | None = None
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="env"), attr=reader), args=[argument, *_]):
                if reader not in READERS:
                    argument = None
            case ast.Call(func=ast.Name(id="is_configured" | "getenv"), args=[argument, *_]):
                pass
            case ast.Call(
                func=ast.Attribute(value=ast.Attribute(attr="environ"), attr="get" | "setdefault"),
                args=[argument, *_],
            ):
                pass
            case ast.Subscript(value=ast.Attribute(attr="environ"), slice=argument):
                pass
        name = getattr(argument, "value", None)
        if isinstance(name, str) and VARIABLE.fullmatch(name) and name not in NOT_OURS:
            yield name


@cache
def variables_in_code() -> frozenset[str]:
    names = {
        name
        for path, tree in sources(*ROOMS, "local", "docker")
        # docker/check/ has variables of the container check, which no operator sets.
        if "check" not in path.relative_to(ROOT).parts
        for name in variables_of(tree)
    }
    names |= {
        name
        for _, tree in sources("core/env.py")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "text" and node.args
        for name in [getattr(node.args[0], "value", None)]
        if isinstance(name, str)
    }
    procfile = (ROOT / "Procfile").read_text(encoding="utf-8")
    names |= set(re.findall(r"\$\{([A-Z_]+)", procfile))
    names = {name for name in names if name.removesuffix("_FILE") == name or name[:-5] not in names}
    # Not for operators: Vigía itself sets them.
    return frozenset(names - {"DJANGO_SETTINGS_MODULE", "ORT_DISABLE_TELEMETRY", "BACKUP_CALLED_FROM"})


def test_every_environment_variable_is_in_the_operators_table() -> None:
    documented = set(table_words(DOCS / "operating.md", VARIABLE, under="Environment variables"))
    documented |= set(table_words(DOCS / "deploying" / "backups.md", VARIABLE))
    documented |= set(table_words(DOCS / "client.md", VARIABLE))
    read = variables_in_code()
    assert sorted(read - documented) == [], "not in docs/operating.md"
    assert sorted(documented - read) == [], "docs/operating.md names unused variables"


def test_every_variable_of_the_compose_file_is_documented() -> None:
    page = DOCS / "operating.md"
    documented = set(table_words(page, VARIABLE))
    documented |= set(table_words(DOCS / "deploying" / "backups.md", VARIABLE))
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    slim = (ROOT / "docker" / "compose.slim.yml").read_text(encoding="utf-8")
    used = set(re.findall(r"\$\{([A-Z_]+)", text + slim))
    # Variables without a value: passed on from .env.
    services = yaml.safe_load(text)["services"].values()
    for service in services:
        for passed in (service.get("environment", {}), service.get("build", {}).get("args", {})):
            used |= {name for name, value in passed.items() if value is None}
    inside = {"WORKER_CONCURRENCY"}
    assert not used - documented - inside
    own = set(table_words(page, VARIABLE, under="Variables of the compose file alone"))
    assert not own - used


# -- examples ------------------------------------------------------------------------------------------


def test_every_file_of_an_example_is_shipped_or_created_by_it() -> None:
    sent = 0
    for page in PAGES:
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL):
            for name in re.findall(r"(?:--data-binary|-d|-F \S+=) ?@([\w./-]*\w)", block):
                sent += 1
                created = re.search(
                    rf"--out {re.escape(str(Path(name).parent))}\b|> *{re.escape(name)}\b", block
                )
                assert created or (ROOT / name).is_file(), f"{page.name} sends {name}"
    assert sent, "README retrains a model"


def test_the_rows_of_the_readmes_training_run_are_new_and_valid(db: None, tmp_path: Path) -> None:
    match = re.search(r"-m tools\.samples (.*) --out (\S+)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert match
    samples.main([*match[1].split(), "--out", str(tmp_path)])
    [written] = tmp_path.iterdir()
    model = RegisteredModel.objects.create(name=written.stem, title="as the example has it")
    with written.open("rb") as stream:
        assert uploads.from_csv(model, stream, by=None, source="README").rows > 1000
    shipped = (ROOT / "training" / "samples" / written.name).read_text(encoding="utf-8").splitlines()
    assert len(set(written.read_text(encoding="utf-8").splitlines()) & set(shipped)) < 10


# -- architecture and glossary --------------------------------------------------------------------------


def test_every_path_of_the_architecture_page_exists() -> None:
    text = re.sub(r"```.*?```", "", (DOCS / "architecture.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    paths = {path for path in re.findall(r"`([\w./-]+)`", text) if re.search(r"/|\.py$", path)}
    paths = {path for path in paths if not path.startswith("/") and "→" not in path}
    homes = [ROOT, *(ROOT / room for room in ROOMS)]
    assert len(paths) > 30
    assert sorted(path for path in paths if not any((home / path).exists() for home in homes)) == []


def test_the_packages_of_the_architecture_page_are_the_layers_in_order() -> None:
    block = re.search(
        r"```\n(config/.*?)```", (DOCS / "architecture.md").read_text(encoding="utf-8"), re.DOTALL
    )
    assert block is not None
    packages = re.findall(r"^(\w+)/ ", block[1], flags=re.MULTILINE)
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    layers = next(each["layers"] for each in contracts["contracts"] if each["layers"][0] == "config")
    assert packages == layers == list(ROOMS)


def test_the_processes_of_the_architecture_page_are_those_of_the_procfile() -> None:
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    table = text.partition("## Processes")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\w+) \|", table, flags=re.MULTILINE)
    procfile = (ROOT / "Procfile").read_text(encoding="utf-8")
    assert set(rows) - {"process"} == set(re.findall(r"^(\w+):", procfile, flags=re.MULTILINE))


def test_the_terms_of_the_glossary_are_sorted_and_unique() -> None:
    rows = re.findall(
        r"^\| ([^|]+) \| ([^|]+) \|$", (DOCS / "glossary.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    terms = [term for term, _ in rows if term != "term"]
    assert len(terms) > 30
    assert terms == sorted(set(terms), key=str.lower)


# -- links ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_are_valid(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{page.name} links to {target}"
        if anchor and linked.suffix == ".md":
            assert anchor in anchors(linked), f"{page.name} links to {target}"


def anchors(page: Path) -> set[str]:
    """Returns the anchors of a page's headings, as code hosts generate them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
