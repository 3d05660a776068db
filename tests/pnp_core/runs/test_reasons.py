"""Reasons that are the same but for names and numbers."""

from pnp_core.runs.reasons import grouped


def test_reasons_of_different_files_and_annotations_are_one():
    reasons = {
        "'a/x.json': annotation 7 has a box and no mask": 2,
        "'a/x.json': annotation 8 has a box and no mask": 1,
        "ground truth is 10x20 pixels, the picture 20x10: they must be equal": 1,
        "ground truth is 30x20 pixels, the picture 20x10: they must be equal": 1,
        "empty file (0 bytes)": 5,
    }
    assert grouped(reasons) == {
        "empty file (0 bytes)": 5,
        "'a/x.json': annotation ... has a box and no mask": 3,
        "ground truth is ... pixels, the picture 20x10: they must be equal": 2,
    }


def test_what_says_something_else_stays_apart():
    reasons = {"cannot be read: HTTP 404 Not Found": 1, "cannot be read: Permission denied": 1}
    assert grouped(reasons) == reasons


def test_groups_of_batches_are_grouped_again():
    first, second = {"annotation ... has no mask": 2}, {"annotation 5 has no mask": 1}
    assert grouped({**first, **second}) == {"annotation ... has no mask": 3}


def test_reason_with_a_nul_is_as_any_other():
    assert grouped({"a\0b": 1, "a 'x' b": 1, "\0 7 is odd": 2, "\0 8 is odd": 1}) == {
        "\0 ... is odd": 3,
        "a\0b": 1,
        "a 'x' b": 1,
    }
    # A NUL is no detail: what has one where another has a number stays apart.
    assert len(grouped({"entry \0 is odd": 1, "entry 7 is odd": 1})) == 2
