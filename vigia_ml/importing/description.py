"""The report on an opened file, read as untrusted input, and the columns that it names."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from vigia_ml.importing.errors import NotImportable
from vigia_ml.schema import DatasetSchema
from vigia_ml.schema.columns import written_name
from vigia_ml.schema.faults import clip, first_of

Label = str | bool | int | float | None
_LOOSE: Final = re.compile(r"[\W_]+")


class Description(msgspec.Struct, frozen=True):
    """The report on a file; see `vigia_ml.importing.opening`.

    features, separator : of a DictVectorizer, else None. names : of the columns; None for arrays and dicts.
    values : column -> categories that an encoder knows. texts : columns whose words are read.
    """

    estimator: str
    task: str
    classes: tuple[Label, ...] | None
    labels: tuple[Label, ...] | None
    features: tuple[str, ...] | None
    separator: str | None
    names: tuple[str, ...] | None
    width: int | None
    values: dict[str, list[Label]]
    takes_nan: bool
    others: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()

    @classmethod
    def of(cls, raw: Any) -> Description:
        """Reads a report. Raises `NotImportable` for one of another form, which only a hostile file gives."""
        try:
            return msgspec.convert(raw, cls)
        except msgspec.ValidationError as error:
            raise NotImportable(
                f"the file gave a report of another form ({error}): do not trust it"
            ) from None


def loosened(name: str) -> str:
    """Returns a name without case, spaces and signs, for names that were tidied up in a notebook."""
    return _LOOSE.sub("", written_name(name)).casefold()


class Original:
    """The columns of a pipeline, with the texts that it knows of each.

    Parameters
    ----------
    description : of the file. columns : names given by the user, in order; only for pipelines of arrays.
    available : names of the table's columns; features of a vectorizer are divided by them.

    Attributes
    ----------
    texts : column -> texts that the pipeline knows; None where it knows no texts.
    numeric : columns that the pipeline knows as numbers. words : columns whose words it reads.
    """

    def __init__(
        self, description: Description, available: Sequence[str], columns: Sequence[str] | None = None
    ) -> None:
        self.texts: dict[str, list[str] | None] = {}
        self.numeric: set[str] = set()
        self.words = frozenset(description.texts)
        if description.features is not None:
            self._of_features(description, available)
            return
        for name in _names(description, available, columns):
            values = description.values.get(name, [])
            known = [value for value in values if isinstance(value, str)]
            self.texts[name] = known or None
            if values and not known:
                self.numeric.add(name)

    def _of_features(self, description: Description, available: Sequence[str]) -> None:
        """Divides features such as ``contract=two_year`` and ``tenure`` into columns and texts."""
        assert description.features is not None and description.separator
        separator = description.separator
        loose = {loosened(name) for name in available}
        unknown = []
        for feature in description.features:
            if feature in self.texts and self.texts[feature] is None:
                continue
            if loosened(feature) in loose and separator not in feature:
                self.texts.setdefault(feature, None)
                self.numeric.add(feature)
                continue
            divided = next(_divisions(feature, separator, loose), None)
            if divided is None:
                unknown.append(feature)
                continue
            name, text = divided
            held = self.texts.setdefault(name, [])
            if held is None or name in self.numeric:
                raise NotImportable(
                    f"the vectorizer knows both texts and numbers of {clip(name)!r}; a column has one type: "
                    "fit it on rows of one type, without nulls among texts"
                )
            held.append(text)
        if unknown:
            columns = {each.partition(separator)[0] for each in unknown}
            raise NotImportable(
                f"the vectorizer was fitted on {first_of(sorted(map(repr, columns)), 6)}, which the table "
                f"lacks; it has {first_of(list(map(repr, available)), 30)}"
            )


def _divisions(feature: str, separator: str, loose: Container[str]) -> Iterator[tuple[str, str]]:
    at = feature.find(separator)
    while at > 0:
        if loosened(feature[:at]) in loose:
            yield feature[:at], feature[at + len(separator) :]
        at = feature.find(separator, at + 1)


def _names(
    description: Description, available: Sequence[str], columns: Sequence[str] | None
) -> Sequence[str]:
    if description.names is not None:
        if columns is not None and list(columns) != list(description.names):
            raise NotImportable("the pipeline names its columns itself: leave --columns out")
        return description.names
    if columns is None:
        raise NotImportable(
            f"the pipeline was fitted on an array of {description.width or 'some'} columns without names: "
            f"name them in the author's order, from the table's: --columns {','.join(available)[:500]}"
        )
    if description.width is not None and len(columns) != description.width:
        raise NotImportable(
            f"--columns names {len(columns)} columns, and the pipeline takes {description.width}"
        )
    return columns


def matched(original: Iterable[str], schema: DatasetSchema) -> dict[str, str]:
    """Returns column of the schema -> its original name, in the original order.

    Raises
    ------
    NotImportable : the schema lacks a column, or the pipeline takes the target or the key.
    """
    by_loose: Mapping[str, str] = {
        loosened(name): column.name for column in schema.columns for name in (column.name, *column.aliases)
    }
    names: dict[str, str] = {}
    lacking = []
    for name in original:
        role, column = schema.resolve(name)
        if role in ("target", "key"):
            raise NotImportable(f"the pipeline was fitted on {clip(name)!r}, which is the model's {role}")
        found = column.name if column is not None else by_loose.get(loosened(name))
        if found is None:
            lacking.append(name)
        elif found in names:
            raise NotImportable(
                f"the pipeline takes {clip(names[found])!r} and {clip(name)!r}: one column, twice"
            )
        else:
            names[found] = name
    if lacking:
        raise NotImportable(
            f"the pipeline was fitted on {first_of(list(map(repr, lacking)), 6)}, which the model's schema "
            f"lacks; it has {first_of(list(schema.names), 30)}"
        )
    return names
