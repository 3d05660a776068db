"""`-v` and `-q`, before a command and after it."""

import pytest

from tests.flows.commands import call


@pytest.mark.parametrize("place", ["before", "after"])
def test_quiet_leaves_the_result_alone(place, evaluated):
    words = ["verify", str(evaluated), "--json"]
    done = call(*(["-q", *words] if place == "before" else [*words, "--quiet"]))
    assert done.exit_code == 0
    assert done.stderr == ""
    assert done.stdout.startswith("{")
    assert call(*words).stderr != ""  # the next command in this process is as it was


def test_quiet_says_what_is_wrong_with_the_same_exit_code():
    for words in (["tables", "nowhere", "--out", "x"], ["-q", "tables", "nowhere", "--out", "x"]):
        done = call(*words)
        assert done.exit_code == 2
        (line,) = done.stderr.strip().splitlines()
        assert line.startswith("error: ")


@pytest.mark.parametrize(
    "words", [["-v", "tables", "nowhere", "--out", "x"], ["tables", "nowhere", "--out", "x", "-v"]]
)
def test_verbose_shows_where_an_expected_error_comes_from(words):
    done = call(*words)
    assert done.exit_code == 2
    assert "Traceback (most recent call last)" in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")


def test_verbose_shows_the_debug_lines_of_a_run(evaluated):
    from flows.cli.console import logs_shown
    from flows.cli.loudness import begin
    from tasks.runtime import StageTask

    for verbose, shown in ((True, True), (False, False)):
        begin(verbose, quiet=False)
        with logs_shown():
            from tasks.runtime import runtime

            assert runtime().log.isEnabledFor(10) is shown
            StageTask(lambda: None, "nothing")()
    begin(False, quiet=False)


def test_opposites_are_refused():
    done = call("-v", "datasets", "-q")
    assert done.exit_code == 2
    assert done.stderr.strip() == "error: --verbose and --quiet are opposites: leave one out"


def test_config_commands_take_them_too():
    assert call("config", "list", "-q").exit_code == 0
