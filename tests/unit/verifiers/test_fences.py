"""The program of a response, with every form of fence."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masa.verifiers.code.fences import extract_code

T = "```"
DOCSTRING = f'def f():\n    """Doubles.\n\n    {T}\n    >>> f()\n    {T}\n    """\n    return 1'
EXAMPLE = f"def f():\n    '''So:\n\n{T}python\nf()\n{T}\n'''\n    return 1"


@pytest.mark.parametrize("program", [DOCSTRING, EXAMPLE, f"s = '{T}'", f"# {T}a{T}\ns = 1"])
@pytest.mark.parametrize("fence", [T + "python", T, "````py", T + "{.python}", T + " python3.12"])
def test_a_fence_in_a_string_ends_nothing(program, fence):
    closing = "`" * fence.count("`")
    output = "" if fence == T else f"\nIt prints\n{T}\n1\n{T}\n"
    for after in ("", f"\nIt uses `f`.{output}"):
        assert extract_code(f"So:\n{fence}\n{program}\n{closing}{after}") == program
    assert extract_code(f"{fence}\n{program}\n{closing}\n{T}python\nb\n{T}") == "b"


@pytest.mark.parametrize(
    "text, code",
    [
        ("~~~python\na\n~~~", "a"), (f"~~~py\ns = '''\n{T}\n'''\n~~~", f"s = '''\n{T}\n'''"),
        ("~~~python\ns = '''\n~~~\n'''\n~~~", "s = '''\n~~~\n'''"),
        ("~~~~python\na\n~~~\nb\n~~~~", "a\n~~~\nb"),
        (f"`{T}python\na\n{T}\nb\n`{T}", f"a\n{T}\nb"),
        (f"`{T}markdown\nSo:\n{T}python\na\n{T}\n`{T}", "a"),
        (f"{T}markdown\nSo:\n{T}python\na\n{T}\n{T}", "a"), (f"~~~\n{T}python\na\n{T}\n~~~", "a"),
        (f"\t{T}python\n\tif a:\n\t\tb\n\t{T}", "if a:\n\tb"),
        (f"{T}python\n    if a:\n        b\n{T}", "if a:\n    b"),
        (f"   {T}python\nif a:\n    b\n   {T}", "if a:\n    b"),
        (f"{T}python\n    # so\nif a:\n    b\n{T}", "    # so\nif a:\n    b"),
        (f"- {T}python\n  a\n  b\n  {T}", "a\nb"), (f"2. {T}py\n   a\n   b\n   {T}", "a\nb"),
        (f"> {T}python\n> if a:\n>     b\n> {T}", "if a:\n    b"),
        (f"{T}python\r\na\r\nb\r\n{T}\r\n", "a\nb"), (f"{T}python title='s.py'\na\n{T}", "a"),
        (f"{T}PYTHON\na\n{T}", "a"), (f"{T}solution.py\na\n{T}", "a"), (f"{T}ipython\na\n{T}", "a"),
        (f"{T}pycon\n>>> a\n{T}", None), (f"{T}text\na\n{T}", None), (f"{T}json\n1\n{T}", None),
        (f"Here: {T}python\na\n{T}", "a"), (f"<answer>{T}python\na\n{T}</answer>", "a"),
        (f"{T}python\na\n{T}<|im_end|>", "a"), (f"{T}python\nf(1){T}", "f(1)"),
        (f"{T}python\na\n{T}output\n1\n{T}", "a"), (f"inline {T}x = 1{T} code", None),
        # an empty block is no program where there is another
        (f"{T}python\na\n{T}\n{T}python\n{T}", "a"), (f"{T}python\na\n{T}\n{T}python{T}", "a"),
        (f"{T}python\na\n{T}\nDone:\n{T}python\n\n{T}", "a"), (f"{T}\na\n{T}\n{T}py\n{T}", "a"),
        (f"{T}python\na\n{T}\n{T}\nb\n{T}\n{T}py\n{T}", "a"), (f"{T}\n{T}\n{T}py\n{T}", ""),
        (f"{T}text\na\n{T}\n{T}python\n{T}", ""), (f"{T}text\n{T}", None),
        # abandoned, and begun again
        (f"{T}python\nf(\n\nNo. Again:\n{T}python\nb\n{T}", "b"),
        (f"{T}python\ns = '''\n{T}\nNo:\n{T}python\nt = '''x'''\n{T}", "t = '''x'''"),
        (f"{T}python\ns = '''\n\nNo:\n{T}python\nt = '''x'''\n{T}", "t = '''x'''"),
        # its string never ends: the program is wrong, not absent
        (f"{T}python\ns = '''\n{T}\nDone.", "s = '''"),
        (f"{T}python\ns = '''\n{T}\n", "s = '''"),
        (f"{T}python\ns = r'\\'\n{T}", "s = r'\\'"), (f"{T}python\n{T}", ""),
        ("<think>\n```python\na\n```\n</think>\nI give up", None),
    ],
)  # fmt: skip
def test_ways_to_write_a_fence(text, code):
    assert extract_code(text) == code


lines = st.text(
    st.characters(exclude_characters="\r`\"'#\\", exclude_categories=["Cs"]), max_size=12
)


@given(st.lists(lines, max_size=5))
def test_lines_of_a_program_end_at_line_feeds_alone(block):
    """Other line ends of str.splitlines occur in strings of programs."""
    program = "\n".join(["a", *block, "b"])
    if "~~~" not in program:
        assert extract_code(f"{T}python\n{program}\n{T}") == program


@pytest.mark.parametrize(
    "attack",
    [
        f"{T}python\n'''\n{T}\n" * 3000, f"{T}python\n\"\"\"\n{T}\n'''\n" * 3000, "`" * 10**5,
        f"{T}\n" * 20_000, f"{T}python\n" * 20_000, f"{T}python\n" + "-" * 10**5 + "\n'''\n" + T,
        f"{T}python\n" + "(" * 10**5 + f"'''\n{T}\n'''\n{T}", " > " * 30_000, "- " * 30_000,
    ],
    ids=range(9),
)  # fmt: skip
def test_hostile_responses_end(attack):
    extract_code(attack)
