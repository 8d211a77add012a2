"""What each stage of the paper's recipe does for diversity and consistency, one left out at a time.

    python -m benchmarks.synthesis_ablation --out docs/results/synthesis_ablation

One small model writes all texts, for the same questions and users of one domain. The whole recipe is made once steered
by personas and once by viewpoints; then without steering, without the ensemble (two temperatures of the model, against
the one between them), and without refinement. Every variant is labelled twice:

- by measured attributes: how many pairs differ in an attribute that the user has a weight for, and how much users
  disagree;
- by a judge that reads descriptions (closeness in meaning, by a sentence embedder, with a set bias for the response
  shown first): agreement of both orders, entropy of a label before and after refinement, estimated accuracy. It stands
  in for a large language model. One more variant shows how well the small model itself judges.

Everything is saved under `--work`, and the same command resumes. `difference_to_whole` is the similarity in meaning of
the responses to one question, less that of the first variant: above 0 where they are more similar.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.command_line import command_line
from benchmarks.small_judges import BIAS, ByLogOdds, ByMeaning
from fspo.errors import DataError, FspoError
from fspo.evaluation.statistics.comparing import paired_difference
from fspo.evaluation.statistics.intervals import Estimate, clustered_mean
from fspo.files import read_json, read_jsonl, write_json, write_text
from fspo.judging.attributes import plain_text, words
from fspo.judging.verdicts import OrderTally
from fspo.llm.batching import CachedModel
from fspo.llm.cache import RequestCache
from fspo.llm.ensemble import Ensemble, Member
from fspo.llm.local import LocalModel
from fspo.llm.types import LanguageModel
from fspo.progress import PlainProgress, Progress
from fspo.synthesis.config import Disagreement, Refinement, SynthesisConfig
from fspo.synthesis.diversity import Embed, sentence_embedding
from fspo.synthesis.labels import LABELS
from fspo.synthesis.similarity import jaccard, shingles
from fspo.synthesis.synthesize import Writers, synthesize

__all__ = ["VARIANTS", "Settings", "Variant", "main", "measure"]


@dataclass(frozen=True)
class Settings:
    """What all variants share."""

    model: str = "smollm2-135m"
    domain: str = "elix-easy"
    questions: int = 48
    responses: int = 8
    max_tokens: int = 56
    pairs: int = 120
    """Put before each user, a third of them before all."""
    rounds: int = 3
    refined_pairs: int = 8
    cool: float = 0.7
    hot: float = 1.3
    """Temperatures of the two members of the ensemble; without it, the model has the one between them."""
    judged_by_model: int = 24
    """Pairs put before each user where the model itself is the judge, which reads every one of them twice; 0: none."""
    seed: int = 0

    def recipe(self, variant: Variant, judge: Literal["llm", "measured"]) -> SynthesisConfig:
        """The configuration of one variant."""
        pairs = self.judged_by_model if variant.judged_by_model else self.pairs
        return SynthesisConfig(
            seed=self.seed,
            domain=self.domain,
            questions=self.questions,
            augment=False,
            responses=self.responses,
            steering=variant.steering,
            max_tokens=self.max_tokens,
            temperature=(self.cool + self.hot) / 2,
            judge=judge,
            pairs=pairs,
            shared_pairs=pairs if variant.judged_by_model else -(-pairs // 3),
            refinement=Refinement(rounds=self.rounds, pairs=self.refined_pairs) if variant.refined else None,
            disagreement=None if variant.judged_by_model else Disagreement(),
            meaning=False,  # measured here, question by question
            batch=192,
        )


@dataclass(frozen=True)
class Variant:
    """The recipe, or what is left of it."""

    name: str
    steering: Literal["none", "persona", "views"] = "persona"
    ensemble: bool = True
    refined: bool = True
    judged_by_model: bool = False


VARIANTS = (
    Variant("whole, by personas"),
    Variant("whole, by viewpoints", steering="views"),
    Variant("without steering", steering="none"),
    Variant("without ensemble", ensemble=False),
    Variant("without refinement", refined=False),
    Variant("judged by the model itself", refined=False, judged_by_model=True),
)
"""The first is what the others are compared with."""

Figures = Mapping[str, float]
"""Question -> a figure over its responses."""


class _Models:
    """The models of this benchmark, loaded once."""

    def __init__(self, settings: Settings, work: Path) -> None:
        self._settings = settings
        self.written = CachedModel(LocalModel.load(settings.model), RequestCache(work / "answers.sqlite"))
        self.embed = sentence_embedding()
        self._by_meaning = ByMeaning(self.written, self.embed)
        self._by_log_odds: ByLogOdds | None = None

    def judge(self, variant: Variant) -> LanguageModel:
        if not variant.judged_by_model:
            return self._by_meaning
        if self._by_log_odds is None:
            self._by_log_odds = ByLogOdds(self.written, self._settings.model)
        return self._by_log_odds

    def writer(self, variant: Variant) -> LanguageModel:
        if not variant.ensemble:
            return self.written
        return Ensemble([Member(self.written, 1, at) for at in (self._settings.cool, self._settings.hot)])


def measure(
    settings: Settings, work: Path, progress: Progress, command: str, out: Path | None = None
) -> dict[str, Any]:
    """Make every variant in `work`, or resume it there, and measure it.

    The page in `out` shows `command`.

    Raises:
        ModelError: the model or the sentence embedder can't be obtained.
    """
    models = _Models(settings, work)
    chosen = [variant for variant in VARIANTS if settings.judged_by_model or not variant.judged_by_model]
    record: dict[str, Any] = {"benchmark": "synthesis_ablation", "settings": asdict(settings), "variants": []}
    first: dict[str, Figures] = {}
    for number, variant in enumerate(chosen, start=1):
        progress.say(f"{number} of {len(chosen)}: {variant.name}")
        folder = work / variant.name.replace(",", "").replace(" ", "-")
        row: dict[str, Any] = asdict(variant)
        row["judged"] = _made(settings, variant, "llm", folder / "judged", models, progress)
        if not variant.judged_by_model:
            row["measured"] = _made(settings, variant, "measured", folder / "measured", models, progress)
            figures, row["diversity"] = _diversity(folder / "measured", models.embed)
            first = first or figures
            both = ({(question, ""): value for question, value in some["meaning"].items()} for some in (figures, first))
            row["difference_to_whole"] = paired_difference(*both).to_json()
        record["variants"].append(row)
    if out is not None:
        write_json(out / "figures.json", record)
        write_text(out / "README.md", _page(settings, command, record["variants"]))
    return record


def _made(
    settings: Settings,
    variant: Variant,
    judge: Literal["llm", "measured"],
    folder: Path,
    models: _Models,
    progress: Progress,
) -> dict[str, Any]:
    """Make one dataset and take from its checks what is of interest here."""
    ask = models.judge(variant) if judge == "llm" else models.written
    try:
        synthesize(settings.recipe(variant, judge), Writers(ask, models.writer(variant)), folder, progress)
    except DataError as error:
        if not list((folder / LABELS).glob("*.json")):
            raise
        progress.say(str(error))  # a judge that depends on the order leaves no labels, which is a result
        return _undecided(folder, str(error))
    checks = read_json(folder / "checks.json")
    counts, labels = checks["counts"], checks["labels"]
    found = {
        "decided": 1 - labels["tie_share"],
        "disagreement": checks["disagreement"].get("mean"),
        "preferences": counts["preferences"],
    }
    if judge == "measured":
        return found
    return found | {
        **labels["order"],
        "undecided": labels["undecided"],
        "entropy": labels["entropy"],
        "agreement_with_measures": labels["agreement_with_measures"],
        "sentences": checks["refinement"]["sentences"],
    }


def _undecided(folder: Path, why: str) -> dict[str, Any]:
    """What the shards say of a dataset that was refused for want of labels."""
    shards = [read_json(path) for path in sorted((folder / LABELS).glob("*.json"))]
    total = {name: sum(shard[name] for shard in shards) for name in ("agreed", "disagreed", "first")}
    undecided = sum((Counter(shard["undecided"]) for shard in shards), Counter[str]())
    order = OrderTally(**total, undecided=undecided)
    asked = order.agreed + undecided.total()
    return {
        "decided": order.agreed / asked if asked else 0.0,
        "agreement": _figure(order.agreement),
        "first_share": _figure(order.first_share),
        "undecided": dict(undecided.most_common()),
        "why": why,
    }


def _figure(value: float) -> float | None:
    return None if math.isnan(value) else value


def _diversity(folder: Path, embed: Embed) -> tuple[dict[str, Figures], dict[str, Any]]:
    """Figures by question, and over all of them with an interval clustered by question."""
    header, *rows = read_jsonl(folder / "responses.jsonl")
    texts: dict[str, list[str]] = {}
    for row in rows:
        texts.setdefault(row["question"], []).append(row["text"])
    texts = {question: own for question, own in texts.items() if len(own) >= 2}
    measures: dict[str, Callable[[Sequence[str]], float]] = {
        "meaning": lambda own: _mean_cosine(np.asarray(embed(own))),
        "words": _mean_overlap,
        "distinct": distinct_pairs,
    }
    figures = {name: {q: of(own) for q, own in texts.items()} for name, of in measures.items()}
    bounds = {"meaning": (-1.0, 1.0), "words": (0.0, 1.0), "distinct": (0.0, 1.0)}
    found: dict[str, Any] = {
        name: clustered_mean(list(own.values()), list(own), bounds=bounds[name]).to_json()
        for name, own in figures.items()
    }
    rejected = Counter(header["rejected"])
    found["near_duplicates"] = rejected["near-duplicate"] / header["asked"]
    found["used"] = len(rows) / header["asked"]
    return dict(figures), found


def distinct_pairs(texts: Sequence[str]) -> float:
    """Distinct runs of two words over all such runs, in the texts together (distinct-2, Li et al. 2016)."""
    runs: Counter[tuple[str, str]] = Counter()
    for text in texts:
        tokens = [word.lower() for word in words(plain_text(text))]
        runs.update(pairwise(tokens))
    return len(runs) / runs.total() if runs else 0.0


def _mean_cosine(vectors: Any) -> float:
    products = vectors @ vectors.T
    return float(products[np.triu_indices(len(vectors), 1)].mean())


def _mean_overlap(texts: Sequence[str]) -> float:
    runs = [shingles(text) for text in texts]
    return statistics.fmean(jaccard(one, other) for one, other in combinations(runs, 2))


def _page(settings: Settings, command: str, rows: Sequence[Mapping[str, Any]]) -> str:
    between = (settings.cool + settings.hot) / 2
    lines = [
        "# Ablation of the recipe",
        "",
        f"```sh\n{command}\n```",
        "",
        f"{Path(settings.model).name} on `{settings.domain}`, {settings.questions} questions, {settings.responses} "
        f"responses to each. The ensemble is the model at temperatures {settings.cool:g} and "
        f"{settings.hot:g}, against {between:g} without it. 95% intervals are clustered by question. All results are "
        "in [figures.json](figures.json).",
        "",
        "Diversity of the responses to one question. Less similar is better; the difference is to the first row, "
        "on the same questions.",
        "",
        "| | similarity in meaning | difference | shared word triples | distinct word pairs | near-duplicates | used |",
        "|---|---|---|---|---|---|---|",
        *(_diversity_line(row) for row in rows if "diversity" in row),
        "",
        "Consistency. The first two columns use measured attributes as the judge. The others use a judge that reads "
        f"descriptions and prefers the response closer in meaning, with a bias of {BIAS:g} in the cosine for the one "
        "shown first. It replaces a large language model here, and is neither good nor a person. Its errors in both "
        "orders are not independent, so the estimated accuracy is too high. In the last row the small model itself "
        "judges, by its log-odds of A over B minus those without responses.",
        "",
        "| | pairs that differ in a weighted attribute | users disagree | pairs decided | both orders agree "
        "| for the first shown | entropy before, after refinement (nats) | estimated accuracy | agrees with measures "
        "| sentences added |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *map(_consistency_line, rows),
    ]
    return "\n".join(lines) + "\n"


def _diversity_line(row: Mapping[str, Any]) -> str:
    found = row["diversity"]
    cells = [row["name"], _interval(found["meaning"]), _interval(row["difference_to_whole"]), _interval(found["words"])]
    cells += [_interval(found["distinct"]), f"{found['near_duplicates']:.1%}", f"{found['used']:.1%}"]
    return f"| {' | '.join(cells)} |"


def _consistency_line(row: Mapping[str, Any]) -> str:
    measured, judged = row.get("measured", {}), row["judged"]
    cells = [row["name"], _share(measured.get("decided")), _share(measured.get("disagreement"))]
    cells += [_share(judged.get(name)) for name in ("decided", "agreement", "first_share")]
    entropy = judged.get("entropy")
    cells.append(f"{entropy['before']:.3f}, {entropy['after']:.3f}" if entropy else "-")
    cells += [_share(judged.get(name)) for name in ("estimated_accuracy", "agreement_with_measures")]
    return f"| {' | '.join([*cells, str(judged.get('sentences', '-'))])} |"


def _interval(record: Mapping[str, Any]) -> str:
    found = Estimate(**record)
    return f"{found.value:.3f}" + (f" ({found.low:.3f} to {found.high:.3f})" if found.low is not None else "")


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark from the command line."""
    usual = Settings()
    parser = argparse.ArgumentParser(prog="benchmarks.synthesis_ablation", description=(__doc__ or "").split("\n")[0])
    for name, value in asdict(usual).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    parser.add_argument("--work", type=Path, default=Path("runs/synthesis_ablation"), help="where everything is kept")
    parser.add_argument("--out", type=Path, help="folder for figures.json and README.md")
    options = vars(parser.parse_args(arguments))
    out, work = options.pop("out"), options.pop("work")
    command = command_line("synthesis_ablation", arguments)
    try:
        record = measure(replace(usual, **options), work, PlainProgress(sys.stderr), command, out)
    except FspoError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(record))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
