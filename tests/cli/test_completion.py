"""What a shell is offered: commands, then the verbs, flags and choices of the one that is typed."""

import io
from collections.abc import Callable

import pytest
from argcomplete.finders import CompletionFinder

from glue_sparse.cli import completion, main

Offers = Callable[..., set[str]]


@pytest.fixture
def offers(monkeypatch: pytest.MonkeyPatch) -> Offers:
    def ask(line: str, program: int = 1) -> set[str]:
        answer = io.StringIO()
        monkeypatch.setenv("_ARGCOMPLETE", str(program))
        monkeypatch.setenv("_ARGCOMPLETE_IFS", "\n")
        monkeypatch.setenv("COMP_LINE", line)
        monkeypatch.setenv("COMP_POINT", str(len(line)))

        def leave(status: int) -> None:
            raise SystemExit(status)

        def finder(parser: object, **options: bool) -> None:
            CompletionFinder()(parser, exit_method=leave, output_stream=answer, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(completion, "autocomplete", finder)
        monkeypatch.setattr(CompletionFinder, "_init_debug_stream", lambda self: None)
        with pytest.raises(SystemExit) as ended:
            main.main([])
        assert ended.value.code == 0
        return {word.strip() for word in answer.getvalue().split("\n")}

    return ask


def test_commands_verbs_flags_and_choices(offers: Offers):
    assert offers("glue-sparse ") >= {*main.COMMANDS, "--version"}
    assert offers("glue-sparse tab") == {"table"}
    assert offers("glue-sparse diff ") >= {"show", "apply", "prune", "restore"}
    assert offers("glue-sparse diff prune --d") == {"--density"}
    assert offers("glue-sparse train --method ri") == {"rigl"}
    assert offers("glue-sparse train --task ") >= {"rte", "squad", "tweets", "file"}
    assert offers("glue-sparse train --drop_schedule ") == {"constant", "cosine", "linear"}
    assert offers("glue-sparse train --drop_s") == {"--drop_schedule"}
    assert offers("glue-sparse zero-shot --dtype ") == {"float32", "bfloat16"}


def test_grids_and_files_are_offered(offers: Offers, tmp_path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "table_mine.yaml").write_text("title: mine")
    monkeypatch.chdir(tmp_path)
    for words in ("table run", "figure", "drop-point run --config", "pareto run --config"):
        assert offers(f"glue-sparse {words} table_") >= {"table_1", "table_2", "table_mine.yaml"}, words


def test_a_module_is_completed_like_the_command(offers: Offers):
    assert offers("python -m glue_sparse masks make x y --criterion ", 3) == {"magnitude", "random"}
