"""Units in plain text and LaTeX."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masa.verifiers.units import parse_unit

SAME = [
    (r"\ \mathrm{cm^2}", r"\text{ cm}^2", "square centimeters", "cm2", "sq cm", "cm²",
     r"\mathrm{~cm}^{2}", r"\centi\meter\squared"),
    (r"\text{ m/s}^2", "m/s/s", r"\frac{\mathrm{m}}{\mathrm{s}^2}", "meters per second squared",
     "metres per second per second", r"m \cdot s^{-2}", "m s-2", r"\meter\per\second\squared",
     r"\mathrm{m}/\mathrm{s}^{2}", r"\,\mathrm{m\,s^{-2}}", r"\mathrm{m}\,\mathrm{s}^{-2}", "N/kg"),
    (r"\Omega", "ohm", "ohms", "Ω", "\u2126", r"\mathrm{\Omega}", "V/A", r"\ohm"),
    (r"\mu\text{m}", r"\mu m", "\u00b5m", "\u03bcm", r"\mathrm{\mu m}", r"\mu\mathrm{m}",
     "micrometers", "microns", r"\micro\meter", "\\text{\u03bcm}"),
    (r"J\,K^{-1}\,mol^{-1}", r"$\mathrm{~J} \mathrm{~K}^{-1} \mathrm{~mol}^{-1}$", "J/(mol K)",
     "J/mol K", r"\mathrm{J/(mol\cdot K)}", r"\frac{J}{mol\,K}", "J/mol/K", "J·mol⁻¹·K⁻¹",
     r"\text{J/mol·K}"),
    (r"^{\circ}\text{C}", "°C", r"^\circ C", r"^\circ\mathrm{C}", "degrees Celsius", "celsius",
     r"$^{\circ} \mathrm{C}$", "degC", r"\degreeCelsius", "℃", r"{}^\circ\text{C}", r"\text{°C}"),
    ("km/h", r"\text{km/hr}", "kilometers per hour", "kph", r"\frac{\text{km}}{\text{h}}",
     r"\mathrm{km}\,\mathrm{h}^{-1}", "km/hour"),
    ("%", r"\%", "percent"), ("J", "N m", r"N\cdot m", "N-m", "newton-meters", "kg m^2/s^2", "W s"),
    (r"\mathrm{k\Omega}", r"k\Omega", r"\mathrm{k}\Omega", "kΩ", "kilohms", r"\kilo\ohm"),
    ("ft/s", "feet per second", "ft s^{-1}", "fps"), ("in", "in.", "inches", "inch"),
    ("L", "l", "liter", "litres", "dm^3"), ("mL", "ml", "cm^3", "cc", "milliliter"),
    ("kJ mol^{-1}", r"\mathrm{~kJ} \mathrm{~mol}^{-1}", "kJ/mol", r"\text{kJ mol}^{-1}"),
    ("1/s", "s^{-1}", "/s", "s⁻¹", "per second"), ("rev/min", "rpm", "revolutions per minute"),
    ("deg", r"^\circ", r"^{\circ}", "degrees", "°", r"\degree"), ("V/m", "N/C"), ("T", "Wb/m^2"),
    ("Å", "\u212b", r"\AA", "angstrom", r"\text{\AA}"), ("kWh", "kW h", "kW-h"),
    (r"W/(m^2 K)", r"\mathrm{W/m^2 K}", r"\mathrm{W\,m^{-2}\,K^{-1}}"), ("u", "amu"),
    ("g/cm^3", "g/cc", "g cm^{-3}"), ("mol/L", "M", "mol dm^{-3}"), ("Hz", "hertz", "cycles/s"),
    (r"V/\sqrt{Hz}", "V Hz^{-1/2}"), ("kg", "Kg", "kilogram"), ("h", "hr", "hours"),
]  # fmt: skip
NONE = [
    "", "x", "a", "c", "k", "R", "e", "n", "y", "pi", r"\pi", "x^2", "ab", "cat", "hat", "am",
    "people", "dollars", "units", "points", "apples", "and", "the", "of", "in the", "10^3 kg", "5",
    "m^", "m/", "/", "*m", "m**", "m^m", "m^{99}", "m^x", r"\frac{m}", "(m", "m)", "m/s north",
    "m" * 300, "(" * 150, "Mpc^12" * 20, r"\gamma", r"\lambda", "dB",
]  # fmt: skip


@pytest.mark.parametrize("spellings", SAME, ids=lambda spellings: spellings[0])
def test_spellings_of_a_unit_are_one(spellings):
    (unit,) = {parse_unit(text) for text in spellings}
    assert unit is not None


def test_units_of_different_names_differ():
    assert len({parse_unit(spellings[0]) for spellings in SAME}) == len(SAME)


@pytest.mark.parametrize("text", NONE)
def test_texts_that_are_no_units(text):
    assert parse_unit(text) is None


@pytest.mark.parametrize(
    "one, other, comparable",
    [
        ("Hz", "s^{-1}", True), ("rad/s", "s^{-1}", True), ("Hz", "rad/s", False),
        ("rpm", "Hz", True), ("degC", "K", True), ("J/K", r"J/^\circ C", True), ("Bq", "1/s", True),
        ("ft/s", "m/s", True), ("%", "rad", False), ("days", "weeks", True), ("m^2", "m^3", False),
        ("J", "eV", True), ("g", "N", False), ("G", "T", True), ("deg", "rad", True),
        ("J/mol", "J", False), ("%", "m", False),
    ],
)  # fmt: skip
def test_units_of_the_same_kind_can_be_converted(one, other, comparable):
    one, other = parse_unit(one), parse_unit(other)
    assert one.comparable(other) is other.comparable(one) is comparable


names = st.sampled_from(["m", "kg", "s", "A", "K", "mol", "J", "N", "km", "eV", "L", "Pa", "mT"])
powers = st.integers(-4, 4).filter(bool)


@given(st.dictionaries(names, powers, min_size=1, max_size=4), st.randoms())
def test_order_and_form_do_not_count(unit, random):
    """pint's own value of a product is the reference, in every order and with a slash or not."""
    import pint

    factors = list(unit.items())
    inline = r"\,".join(rf"\mathrm{{{name}}}^{{{power}}}" for name, power in factors)
    random.shuffle(factors)
    above = [f"{name}^{power}" for name, power in factors if power > 0]
    below = [f"{name}^{-power}" for name, power in factors if power < 0]
    slashed = " ".join(above or ["1"]) + ("/(" + " ".join(below) + ")" if below else "")
    parsed = parse_unit(inline)
    expected = pint.Quantity(1, " * ".join(f"{n}**({p})" for n, p in factors)).to_base_units()
    if parsed is None:
        assert expected.dimensionless
    else:
        assert parsed == parse_unit(slashed)
        assert math.isclose(parsed.scale, expected.magnitude, rel_tol=1e-9)
