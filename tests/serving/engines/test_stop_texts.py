from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fspo.serving.engines.stop_texts import StopTexts

letters = st.text("ab\n", max_size=12)


@given(st.lists(letters, max_size=6), st.lists(st.text("ab\n", max_size=3), max_size=3))
def test_a_streamed_text_ends_before_the_first_stop(parts: list[str], stops: list[str]) -> None:
    passing = StopTexts(stops)
    out = ""
    for part in parts:
        out += passing.add(part)
        assert not any(stop in out for stop in stops if stop)
    out += "" if passing.stopped else passing.end()
    whole = "".join(parts)
    ends = []  # where a reader of letter after letter has seen a whole stop for the first time
    for stop in filter(None, stops):
        if stop in whole:
            ends.append((whole.index(stop), whole.index(stop) + len(stop)))
    assert passing.stopped == bool(ends)
    if not ends:
        assert out == whole
    else:
        assert out in {whole[:start] for start, _ in ends}


def test_only_what_may_begin_a_stop_is_held_back() -> None:
    passing = StopTexts(["\n\nUser:"])
    assert passing.add("Yes.\n") == "Yes."
    assert passing.add("\nUs") == ""
    assert passing.add("eful.") == "\n\nUseful."
    assert passing.add("\n\nUser: and") == ""
    assert passing.stopped
    assert passing.add("more") == ""
