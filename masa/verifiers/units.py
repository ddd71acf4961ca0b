r"""Units of measurement: parsed to a canonical form in SI units.

Names and sizes of units are pint's; masa.verifiers.unit_text parses their spelling.
"""

from fractions import Fraction
from functools import cache, lru_cache
from typing import Any, NamedTuple

from masa.verifiers.unit_text import NoUnit, unit_powers

MAX_LENGTH = 200
"""Characters of the longest text that can be a unit."""

# pint also reads constants of nature, Greek letters and many English words as units
_NO_UNITS = set(
    "alpha gamma lambda sigma zeta hbar faraday tansec gravity strain blob candle chain circle"
    " count grade hand link octave octet particle peck perch pixel point pole pond quarter rod"
    " section shake shot bag dot jig biot are stack quad probit decibel bel neper"
    " pica cicero stick".split()
)
_SHORT = set(
    "m g s h d t l L J N W V A K C F T H S M D G B P u cc cd ft in lb oz mi yd yr hr ha hp pc ly au"
    " AU eV Hz Pa Wb Bq Gy Sv Ci Da St Oe Wh Ah VA lm lx sr Ry Eh lbs hrs yrs sec min atm bar cal"
    " mol day deg rad rem rpm rps mph kph fps psi ppm gal ton mho erg dyn lbf kgf amu bit cup"
    " ohm nmi kat esu lux tsp".split()
)
"""Units of at most three letters that are accepted without a prefix."""
_ALIASES = {
    "Å": "angstrom", "Ω": "ohm", "%": "percent", "Torr": "torr", "Cal": "kcal", "KG": "kg",
    "KM": "km", "hz": "Hz", "khz": "kHz", "mhz": "MHz", "ghz": "GHz",
    "kpa": "kPa", "ev": "eV", "kev": "keV", "kj": "kJ", "kw": "kW", "kmh": "kph",
    "revs": "turn", "Sec": "s", "amps": "ampere", "Amps": "ampere", "Amp": "ampere", "Hr": "hour",
    "µ": "micrometer", "gm": "g", "gms": "g", "AU": "au", "kilogramme": "kg", "kilogrammes": "kg",
    **{f"K{unit}": f"k{unit}" for unit in "g m J N W V Pa eV Hz cal mol bar".split()},
    "lightyear": "light_year", "lightyears": "light_year", "kilohm": "kiloohm",
    "kilohms": "kiloohm", "megohm": "megaohm", "rev": "turn",
}  # fmt: skip
_PREFIXED = set(
    "meter gram second ampere kelvin mole candela joule newton watt volt pascal hertz coulomb farad"
    " henry tesla weber siemens ohm liter electron_volt becquerel gray sievert calorie bar"
    " watt_hour byte bit molar dalton parsec curie poise stokes lumen lux katal"
    " gauss meter_Hg torr dyne radian erg".split()
)
"""Units whose symbols may have prefix symbols; without this list, "unit" is a micronit."""
_SYMBOLS = {
    **dict.fromkeys("pico nano micro milli kilo mega giga tera".split(), _PREFIXED),
    "femto": {"meter", "second", "gram", "mole", "farad", "joule", "coulomb"},
    "centi": {"meter", "gram", "liter", "poise", "stokes"},
    "deci": {"meter", "gram", "liter"},
    "hecto": {"pascal"},
}
# pint has a turn as 2 pi and a hertz as 1/s, so that 1 Hz is 1 rad/s; its gauss is no SI unit
_DEFINED = (
    "rotation = [rotation]",
    "rotation_per_second = rotation / second",
    "rotation_per_minute = rotation / minute",
    "gauss_as_tesla = 1e-4 * tesla",
)
_REPLACED = {
    "turn": "rotation",
    "hertz": "rotation_per_second",
    "revolutions_per_second": "rotation_per_second",
    "revolutions_per_minute": "rotation_per_minute",
    "gauss": "gauss_as_tesla",
}
_ANGLES = {"radian", "rotation", "count"}
_ZEROS = {"degree_Celsius": 273.15, "degree_Fahrenheit": 459.67 * 5 / 9}
_DIFFERENCES = {name: f"delta_{name}" for name in _ZEROS}


class Unit(NamedTuple):
    """A unit in its canonical form: equal units are equal objects, as `N m` and `J`."""

    scale: float
    """SI units per unit, to 12 digits."""
    dimension: tuple[tuple[str, Fraction], ...]
    """Base units and their powers, sorted by name; () for percent."""
    offset: float = 0.0
    """Its zero in SI units: 273.15 for degrees Celsius that are not in a product."""

    def comparable(self, other: "Unit") -> bool:
        """Do both measure the same kind of quantity?"""
        if self.dimension == other.dimension:
            return True
        without_angles = [
            tuple(base for base in unit.dimension if base[0] not in _ANGLES)
            for unit in (self, other)
        ]
        dropped_once = self.dimension == without_angles[0] or other.dimension == without_angles[1]
        return dropped_once and without_angles[0] == without_angles[1] != ()


@lru_cache(maxsize=4096)
def parse_unit(text: str) -> Unit | None:
    r"""The unit in a text, or None where it is no unit.

    Args:
        text: LaTeX or plain, with or without `$` and fonts: `\ \mathrm{cm^2}`, `\text{ m/s}^2`,
            `\mu\text{m}`, `^{\circ}\text{C}`, `square metres`, `km/h`, `\%`. No number: `10^3 kg`
            is none. Everything after a slash is a denominator: `J/mol K` is J/(mol K).
    """
    if len(text) > MAX_LENGTH:
        return None
    scale, dimension = 1.0, dict[str, Fraction]()
    try:
        powers = _pint_powers(unit_powers(text))
        for name, power in powers.items():
            size, bases = _size(name)
            scale *= size ** float(power)
            for base, exponent in bases.items():
                dimension[base] = dimension.get(base, Fraction(0)) + exponent * power
    except (NoUnit, OverflowError):
        return None
    if not powers or not 0 < scale < float("inf"):
        return None
    alone = len(powers) == 1 and set(powers.values()) == {1}
    offset = _ZEROS.get(next(iter(powers)), 0.0) if alone else 0.0
    bases = {base: power for base, power in dimension.items() if power}
    return Unit(float(f"{scale:.12g}"), tuple(sorted(bases.items())), offset)


def _pint_powers(names: dict[str, Fraction]) -> dict[str, Fraction]:
    """Powers by pint's names of the units."""
    total: dict[str, Fraction] = {}
    for name, power in names.items():
        pint_name = _pint_name(name)
        total[pint_name] = total.get(pint_name, Fraction(0)) + power
    return {name: power for name, power in total.items() if power}


@cache
def _registry() -> Any:
    import pint

    registry: Any = pint.UnitRegistry()
    for definition in _DEFINED:
        registry.define(definition)
    return registry


@lru_cache(maxsize=1024)
def _pint_name(name: str) -> str:
    """pint's own name of a unit, with its prefix."""
    for spelling in (name, name.lower()) if len(name) > 3 else (name,):
        spelling = _ALIASES.get(spelling, spelling)
        if spelling in _NO_UNITS or spelling.removesuffix("s") in _NO_UNITS:
            continue
        for prefix, unit, _ in sorted(_registry().parse_unit_name(spelling)):
            if (
                not prefix
                and (len(spelling) > 3 or spelling in _SHORT)
                or (prefix and (spelling.startswith(prefix) or unit in _SYMBOLS.get(prefix, ())))
            ):
                return str(prefix) + _REPLACED.get(unit, unit)
    raise NoUnit(name)


@lru_cache(maxsize=1024)
def _size(name: str) -> tuple[float, dict[str, Fraction]]:
    """SI units in one unit, and their powers; a difference of temperatures for degrees."""
    factor, units = _registry().get_base_units(_DIFFERENCES.get(name, name))
    return float(factor), {
        str(base): Fraction(power).limit_denominator(12) for base, power in units._units.items()
    }
