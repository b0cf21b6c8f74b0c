"""Where the public names went: `python -m scripts.names` writes the table in CHANGELOG.md, from both trees.

The old tree is read from git (`git show`), the new one from the files here. A name that is public in neither
has to be in MOVED or GONE below, or the script fails.
"""
import ast, re, subprocess, sys
from pathlib import Path

from scripts.house import House, public_names

root = Path(__file__).resolve().parent.parent
OLD = "7055304"  # the last commit with one module a lesson
BEGIN, END = "<!-- names: made by `python -m scripts.names` -->", "<!-- end of names -->"
# What has another name now, or has become a part of something else.
MOVED = {
    "train_byte_bpe": "data.train_tokenizer",
    "word_tokenizer": "data.train_tokenizer(kind='word')",
    "cache_dir": "support.machine.cache_path",
    "draw_chunks": "policies.show_chunks",
    "next_word_widget": "ngram.NextWordGame",
    "choose_positions": "labels.sample_positions",
    "batch_html": "labels.show_batch_labels",
    "masking_html": "labels.masking_explorer",
    "per_tokenizer": "support.inputs.cached_per_tokenizer",
    "model_nll": "perplexity.chunked_nll, and a cell of lesson 40",
    "new_lm": "models.new_model, with models.tiny_gpt_config or models.tiny_bert_config",
    "tiny_gpt": "models.tiny_gpt_config",
    "tiny_bert": "models.tiny_bert_config",
    "quiet_transformers": "support.machine.quiet",
    "RULES": "advice.Rules",
    "split_words": "advice.fragmented_words",
    "fair_pairs": "advice.length_matched_pairs",
    "byte_counter": "advice.byte_ngram_bits",
    "home_text": "models.reference_texts",
    "keep_home": "models.save_lm(reference_texts=)",
    "save_half": "models.save_lm(dtype=)",
    "load_backbone": "models.load_lm(head=)",
    "load_classifier": "models.load_lm(head='sequence-classification')",
    "transformer_splitter": "models.layer_groups",
    "same_body": "heads.assert_same_backbone",
    "make_lm_optimizer": "finetuning.lm_optimizer",
    "make_optimizer": "finetuning.lm_optimizer",
    "wsd_factor": "finetuning.lr_factor(schedule='wsd')",
    "last_checkpoint": "checkpoints.Checkpoints.last",
    "TrainingJob": "finetuning.Recipe",
    "RECIPES": "finetuning.Recipe",
    "plain_loop": "finetuning.train_loop",
    "complete": "predictions.generate_text(heal=)",
    "orthogonal": "pretraining.newton_schulz",
    "rows_at": "pretraining.batch_indices",
    "xz_bits": "scratch.compression_baseline",
    "recitations": "releasing.memorization",
    "same_reviews": "baselines.RunResult",
    "majority_baseline": "baselines.linear_baseline(splits, 'majority')",
    "count_baseline": "baselines.linear_baseline(splits, 'counts')",
    "tfidf_baseline": "baselines.linear_baseline(splits, 'tfidf')",
    "nbsvm_baseline": "baselines.linear_baseline(splits, 'nbsvm')",
    "ReviewCollator": "labels.pad_examples",
    "log_odds": "classification.predict_proba(log_odds=True)",
    "review_box": "windows.review_explorer",
    "seeds_table": "comparing.compare_seeds",
}
# What is no longer in the library, and what to use instead.
GONE = {
    "compare_starts": "`benchmarks/experiments/should_finetune.py`",
    "js_distance": "a cell of lesson 53",
    "style_distance": "a cell of lesson 53",
    "style_symbols": "a cell of lesson 53",
    "VALENCES": "`benchmarks.experiments.lexicon`",
    "NEGATIONS": "`benchmarks.experiments.lexicon`",
    "lexicon_score": "`benchmarks.experiments.lexicon`",
    "lexicon_baseline": "`benchmarks.experiments.lexicon`",
    "anchors_table": "a cell of lesson 60",
    "confusion_table": "`pandas.crosstab(labels, predictions)`",
    "plot_accuracy_by": "a line of pandas in lesson 63",
    "padding_waste": "a cell of lesson 62",
    "ENGINES": "`train_loop`, or one of lesson 52's engines",
    "adamw_engine": "`train_loop`",
    "trainer_engine": "lesson 52 trains classifiers, too",
    "fastai_engine": "lessons 52 and 56 train classifiers, too",
    "unfreezing": "fastai's `freeze_to`, in lesson 56",
    "unfreeze_engine": "fastai's `freeze_to`, in lesson 56",
}


def show(path: str) -> str:
    "A file of the old tree."
    done = subprocess.run(["git", "show", f"{OLD}:{path}"], cwd=root, capture_output=True, text=True,
                          check=True)
    return done.stdout


def old_names() -> dict[str, str]:
    "Public name -> module, in the old tree."
    files = subprocess.run(["git", "ls-tree", "--name-only", OLD, "course_lm/"], cwd=root,
                           capture_output=True,
                           text=True, check=True).stdout.split()
    found = {}
    for path in files:
        if path.endswith(".py") and not Path(path).stem.startswith("_"):
            for name in public_names(show(path)): found.setdefault(name, Path(path).stem)
    return found


def new_names(house: House) -> tuple[dict[str, str], set[str]]:
    """Public name -> module, and `module.name` for all that a module defines under a plain name, in the tree
    here."""
    public, defined = {}, set()
    for module, source in house.modules.items():
        for name in public_names(source): public.setdefault(name, module)
        for node in ast.parse(source).body:
            names = [getattr(node, "name", "")] + [getattr(t, "id", "") for t in getattr(node, "targets", [])]
            defined |= {f"{module}.{name}" for name in names if name}
            for part in getattr(node, "body", []) if isinstance(node, ast.ClassDef) else []:
                defined.add(f"{module}.{node.name}.{getattr(part, 'name', '')}")
    return public, defined


def rows(house: House) -> list[tuple[str, str]]:
    "(old, new) for each public name that is not where it was."
    public, defined = new_names(house)
    found, lost = [], []
    for name, module in sorted(old_names().items(), key=lambda x: (x[1], x[0].lower())):
        if public.get(name) == module: continue
        if name in public: new = f"`{public[name]}.{name}`"
        elif name in MOVED: new = re.sub(r"[\w.]+\.\w+(\(.*?\))?", r"`\g<0>`", MOVED[name])
        elif name in GONE: new = GONE[name]
        else:
            plain = sorted(d for d in defined if d.split(".")[-1] == name and d.count(".") <= 2)
            new = f"`{plain[0]}`" if plain else ""
        if not new: lost.append(f"{module}.{name}")
        found.append((f"`{module}.{name}`", new))
    wrong = [name for new in MOVED.values() for name in re.findall(r"[\w.]+\.\w+", new)
             if name not in defined]
    if wrong: raise SystemExit(f"there is no {', '.join(sorted(set(wrong)))}")
    if lost: raise SystemExit(f"say in scripts/names.py where these went: {', '.join(lost)}")
    return found


def table(found: list[tuple[str, str]]) -> str:
    lines = ["| before | now |", "| --- | --- |"] + [f"| {old} | {new} |" for old, new in found]
    return "\n".join([BEGIN, "", *lines, "", END])


def main() -> int:
    path = root / "CHANGELOG.md"
    text = path.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    found = rows(House())
    path.write_text(before + table(found) + rest.split(END)[1], encoding="utf-8")
    print(f"{len(old_names())} public names before, {len(found)} of them elsewhere or called something else")
    return 0


if __name__ == "__main__": sys.exit(main())
