"""Sections of a config: frozen dataclasses without defaults that check themselves when they are made.

A section stands beside the code that reads it and bears the field names of `configs/`, where the defaults and their
comments are. Each field states its type and range once:

    class Freeze(Section, name="freeze"):
        k: Annotated[int, at_least(1)]

so that `Freeze(**config.freeze)` either works or ends in "freeze.k is 0; expected a whole number from 1".
"""

import dataclasses
import functools
import math
import numbers
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, ClassVar, NamedTuple, Self, dataclass_transform

from nada_jax.errors import UserError


class Rule(NamedTuple):
    """What a value has to be, beside its type."""

    good: Callable[[Any], bool]
    expected: str


def at_least(least: int) -> Rule:
    """Whole numbers from `least`."""
    return Rule(lambda x: x >= least, f"a whole number from {least}")


def one_of(names: Iterable[str]) -> Rule:
    """One of a few words."""
    names = tuple(names)
    return Rule(lambda x: x in names, f"one of {', '.join(names)}")


# JAX counts in 32 bits: larger sizes would wrap round.
LARGEST = 2**31 - 1
# Common ranges. Infinite and undefined numbers are in none of them: comparisons with NaN are False.
_Countable = Rule(lambda x: x <= LARGEST, f"at most {LARGEST:,}")
Count = Annotated[int, _Countable, at_least(1)]
Whole = Annotated[int, _Countable, at_least(0)]
Number = Annotated[float, Rule(math.isfinite, "a finite number")]
NonNegative = Annotated[float, Rule(lambda x: 0 <= x < math.inf, "a number from 0")]
Positive = Annotated[float, Rule(lambda x: 0 < x < math.inf, "a number above 0")]
Share = Annotated[float, Rule(lambda x: 0 <= x <= 1, "a share in 0..1")]
# 1 draws as trained. Far beyond that all images are alike, and the squares of what networks compute leave float32.
Truncation = Annotated[float, Rule(lambda x: -100 <= x <= 100, "a number in -100..100")]
# JAX keeps 32 bits of a seed: larger ones would draw what smaller ones do.
SEEDS = range(2**32)
Seed = Annotated[int, Rule(lambda x: int(x) in SEEDS, "a whole number in 0..2^32 - 1")]
PRECISIONS = ("float32", "bfloat16")  # in which networks compute
Precision = Annotated[str, one_of(PRECISIONS)]


def need(good: bool, field: str, value: Any, expected: str) -> None:
    """Raises the one kind of message about a field.

    Args:
      good: whether the value can be used.
      field: as the user wrote it, such as "freeze.k".
      value: what it is.
      expected: what would be right.

    Raises:
      UserError: it is not good.
    """
    if not good:
        raise UserError(f"{field} is {value!r}; expected {expected}")


@dataclass_transform(frozen_default=True)
class Section:
    """A section of a config; subclasses become frozen dataclasses. See the module's docstring.

    A field whose type is a section holds that section. `check` may be overridden to hold fields against each
    other.
    """

    name: ClassVar[str] = ""  # of the section in the config; "" at the top

    def __init_subclass__(cls, name: str = "", **named: Any):
        super().__init_subclass__(**named)
        cls.name = name
        # Here rather than by a decorator, so that no section can forget to be frozen.
        dataclasses.dataclass(frozen=True)(cls)

    @classmethod
    def extended(cls, fields: Mapping[str, Any], name: str = "") -> type[Self]:
        """A subclass with more fields, such as one for each row of a table.

        Args:
          fields: field -> type.
          name: of the section; by default that of this class.
        """
        # dataclasses.make_dataclass would apply the decorator a second time, which frozen classes refuse.
        body = {
            "__annotations__": dict(fields),
            "__module__": cls.__module__,
            "__doc__": cls.__doc__,
        }
        return types.new_class(
            cls.__name__, (cls,), {"name": name or cls.name}, lambda space: space.update(body)
        )

    def __post_init__(self):
        for field, hint in hints(type(self)).items():
            self._check_field(field, hint, getattr(self, field))
        self.check()

    def check(self) -> None:
        """Holds fields against each other; raises UserError."""

    def need(self, good: bool, field: str, expected: str) -> None:
        """`need` for a field of this section."""
        need(good, self.path(field), getattr(self, field), expected)

    @classmethod
    def path(cls, field: str) -> str:
        """The name of a field as the user writes it."""
        return f"{cls.name}.{field}" if cls.name else field

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self:
        """Makes the section, and those within it, out of a config.

        Raises:
          UserError: a field is missing or unknown, of another type, or out of its range.
        """
        known = hints(cls)
        for field in sorted(known.keys() ^ set(config)):
            state = "is missing in the config" if field in known else "is unknown"
            raise UserError(f"{cls.path(field)} {state}; expected all of {', '.join(known)}")
        return cls(
            **{
                field: _read_within(hint, config[field], field)
                if is_section(hint)
                else config[field]
                for field, hint in known.items()
            }
        )

    def _check_field(self, field: str, hint: Any, value: Any) -> None:
        rules = ()
        if typing.get_origin(hint) is Annotated:
            hint, *rules = typing.get_args(hint)
        # A rule describes the value better than its type does: "one of none, late" rather than "a text".
        expected = rules[-1].expected if rules else _described(hint)
        self.need(_has_type(value, hint), field, expected)
        self.need(_is_unicode(value), field, "text without halves of surrogate pairs")
        for rule in rules:
            self.need(rule.good(value), field, rule.expected)


@functools.cache  # resolving types is slow, and a comparison reads hundreds of sections
def hints(section: type[Section]) -> dict[str, Any]:
    """Field -> type of a section, rules included."""
    known = typing.get_type_hints(section, include_extras=True)
    return {field.name: known[field.name] for field in dataclasses.fields(section)}


def is_section(hint: Any) -> bool:
    """Whether a type is a section."""
    return isinstance(hint, type) and issubclass(hint, Section)


def fields(section: type[Section], prefix: str = "") -> set[str]:
    """Flat names of all fields of a section and of those within it."""
    flat = set()
    for field, hint in hints(section).items():
        within = is_section(hint)
        flat |= fields(hint, f"{prefix}{field}.") if within else {prefix + field}
    return flat


def _read_within(section: type[Section], config: Mapping[str, Any], field: str) -> Section:
    """A section within another; one that does not bear the name of its field is a config of its own."""
    # By what it can: ml_collections' dictionaries are no Mapping.
    need(hasattr(config, "keys"), field, config, f"a section with {', '.join(hints(section))}")
    try:
        return section.read(config)
    except UserError as error:
        # Of a section within another one, the name has both: "guidance.loss" is the field "loss".
        named = section.name.rpartition(".")[2] == field
        raise error if named else UserError(f"{field}.{error}") from error


def _has_type(value: Any, hint: Any) -> bool:
    """Whether a value has a plain type, tuple[plain, ...] or is a section; whole numbers pass for numbers."""
    if hint is Any:
        return True
    if typing.get_origin(hint) is tuple:
        (item, _) = typing.get_args(hint)
        return isinstance(value, tuple) and all(_has_type(x, item) for x in value)
    if hint in (int, float):
        # The numbers of numpy count, as a sweep over np.arange has them; True, an int to Python, does not.
        kind = numbers.Integral if hint is int else numbers.Real
        return isinstance(value, kind) and not isinstance(value, bool)
    return isinstance(value, hint)


def _is_unicode(value: Any) -> bool:
    """False for texts, alone or in a tuple, that no file can hold: bytes of another encoding lead to them."""
    texts = [x for x in (value if isinstance(value, tuple) else (value,)) if isinstance(x, str)]
    return not any("\ud800" <= character <= "\udfff" for text in texts for character in text)


def _described(hint: Any) -> str:
    """A type in words."""
    if typing.get_origin(hint) is tuple:
        return f"a tuple, each element {_described(typing.get_args(hint)[0])}"
    words = {int: "a whole number", float: "a number", str: "a text", bool: "True or False"}
    return words.get(hint, getattr(hint, "__name__", str(hint)))
