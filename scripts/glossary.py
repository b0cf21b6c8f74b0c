"""The glossary: bold terms of the lessons, and the sentences that introduce them.

    python -m scripts.glossary           # makes nbs/glossary.md
    python -m scripts.glossary --check   # exit status 1 where it is out of step

A term is a bold word, or a few, in a lesson's text; what is bold for another reason is in NO_TERM. Where
several lessons introduce it, the first sentence that stands alone is taken.
"""
import re
import sys

from scripts.lessons import is_numbered, keep_page, nbs, read

PAGE = nbs / "glossary.md"
COMMAND = "python -m scripts.glossary"
# Bold for emphasis, names of what is compared in one lesson, answers.
NO_TERM = set("""
    a falling rate; a longer one; a warm-up; adam; adamw for adam; add up nats and tokens, and divide
    once, at the very end; always; another base model; answer; attention; best three; block; blocks; body
    and head; boundary; by movie; choose the weight; clean; code; concedes; denoiser; distilbert; dna;
    each side at the learning rate that is best for it; english; equally many tokens; familiar; fine-tune;
    fine-tuned; floor; fresh; from scratch; frozen; gradient; gradual unfreezing, and rates by layer;
    here; hid; home; how many different tokens it has followed; it makes a rate usable that would break
    the run; its own writing; kept; leaky; no; no, it does not pay; now it pays; one; optimizer; own
    writing; padding; pads; place; policy; positions; random state; rank (of a word); recipe; same; say
    which stride you used; segments; shares; single words; span; strange; strategy; swapped; synthetic
    reviews; t5; the first answer; the manual; the second answer; three times; tiny-bert; tiny-gpt; torn;
    training on what the model will be asked; turn; turns; untouched; use it as it is; warm up, stay
    stable, decay; who shares a batch with whom; windows; without a single label; words and pairs; yes
    """.replace("\n", " ").split(";"))
NO_TERM = {" ".join(term.split()) for term in NO_TERM}
# What a term is called where the text says it in another form.
NAMES = {"causal": "causal model", "masked": "masked model", "n-gram": "n-gram model",
         "bigram": "bigram model", "trigram": "trigram model", "absolute": "absolute positions",
         "rotary": "rotary positions", "varlen": "varlen attention", "smooth": "smoothing",
         "generate": "generating text", "tokens": "token", "chunks": "chunk", "logits": "logit",
         "pickles": "pickle", "spans": "span", "bits": "bit", "nats": "nat", "label": "labels",
         "clipping": "gradient clipping", "streamed": "streaming", "target": "targets",
         "end of a text": "end-of-text token", "packing": "packing", "test": "test set",
         "validation": "validation set", "brier score": "Brier score",
         "bonferroni": "Bonferroni", "markov source": "Markov source", "f1": "F1",
         "markov assumption": "Markov assumption", "23:rank": "rank (of a process)",
         "10:rank": "rank (of a word)", "55:rank": "rank (of LoRA)"}
PREFERRED = {"LSTM": "61", "F1": "54"}  # term -> the lesson that says it best
SKIPPED = "Predict first", "Your turn"  # sections whose bold words are answers and names
LEADS = re.compile(r"(Reading|Running|You need|Next:|In one minute|Time:|Before:|Answer \d|Further reading"
                   r"|Exercise \d|\(?\w\)|\d)")
LEANS = re.compile(r"(If so|Such|It|Its|It's|They|That|That's|This|These|Those|He|She|The other|The second"
                   r"|And|But|So|Here|Then|Now)\b")
SENTENCE_END = re.compile(r"(?:(?<=[.!?])|(?<=[.!?]\)))(?<!\b[A-Z]\.)(?<!e\.g\.)(?<!i\.e\.)(?<!et al\.) +"
                          r"(?=[A-Z*`\"“(\[])")


def pages() -> list:
    "The lessons, in order."
    return sorted(p for p in nbs.glob("*.ipynb") if is_numbered(p))


def sections(path) -> list[tuple[str, str]]:
    "(heading, a paragraph, list item or table row below it), without code, formulas and folded answers."
    heading, found = "", []
    for cell in read(path).cells:
        if cell.cell_type != "markdown": continue
        text = re.sub(r"\*How you notice\.\* ", "", cell.source)
        text = re.sub(r"(?s)```.*?```|\$\$.*?\$\$|<details>.*?</details>", "\n\n", text)
        for part in re.split(r"\n\s*\n|\n(?=(?:[-*|#>]|\d+\.) ?)", text):
            part = " ".join(part.split())
            if title := re.match(r"#+ (.+)", part): heading = title[1]
            elif part: found.append((heading, re.sub(r"^([-*>]|\d+\.) ", "", part)))
    return found


def sentences(text: str) -> list[str]:
    "The sentences of a paragraph. A full stop inside brackets or after one letter ends none."
    return [part for part in SENTENCE_END.split(text) if part]


def introduced(text: str) -> list[tuple[str, str, bool]]:
    "(term, the sentence that introduces it, whether that stands alone) for each bold term of a paragraph."
    found, said = [], sentences(text)
    for i, sentence in enumerate(said):
        for bold in re.findall(r"\*\*(.+?)\*\*", sentence):
            if bold[-1] in ".:?!" or LEADS.match(bold) or len(bold.split()) > 4 or "`" in bold: continue
            if text.startswith("|"): continue
            if re.match(rf"\*\*{re.escape(bold)}\*\*( \(.*?\))?: ", sentence): continue
            leans = bool(LEANS.match(sentence.replace("*", ""))) or len(sentence.split()) < 6
            whole = f"{said[i-1]} {sentence}" if leans and i else sentence
            found.append((bold, re.sub(r":$", ".", whole), not leans))
    return found


def name_of(bold: str, number: str) -> str:
    "As it stands in the glossary: lower case, unless it is a name."
    word = bold if re.search(r"[A-Z]", bold[1:]) or "'s " in bold else bold[0].lower() + bold[1:]
    return NAMES.get(f"{number}:{word.lower()}", NAMES.get(word.lower(), word))


def plain(sentence: str, file: str) -> str:
    "Links inside a lesson lead into it from outside; bold is left to the term."
    return re.sub(r"\]\(#", f"]({file}#", sentence.replace("**", ""))


def anchor(heading: str) -> str:
    "As Jupyter makes it."
    return re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", re.sub(r"[`*]", "", heading)).replace(" ", "-")


def terms() -> dict[str, tuple]:
    "name -> (sentence, file, heading, title of the lesson) of the first sentence that stands alone."
    found = {}
    for path in pages():
        title = ""
        for heading, text in sections(path):
            title = title or heading
            if heading.startswith(SKIPPED): continue
            for bold, sentence, alone in introduced(text):
                name = name_of(bold, path.name[:2])
                if {bold.lower(), name.lower()} & NO_TERM: continue
                if PREFERRED.get(name, path.name[:2]) != path.name[:2]: continue
                before = found.get(name.lower())
                if before is None or alone and not before[-1]:
                    where = plain(sentence, path.name), path.name, heading, title
                    found[name.lower()] = name, *where, alone
    return {name: where for name, *where, _ in sorted(found.values(), key=lambda f: f[0].lower())}


def page() -> str:
    "The glossary as Markdown."
    found = terms()
    lines = ["# Glossary", "",
             "> The terms that the lessons introduce, each with the sentence that says what it is.", "",
             f"{len(found)} terms in alphabetical order. The link leads to the place in the lesson.", ""]
    for name, (sentence, file, heading, title) in found.items():
        lines.append(f"- **{name}**: {sentence} ([{title}]({file}#{anchor(heading)}))")
    return "\n".join(lines) + "\n"


if __name__ == "__main__": sys.exit(keep_page(PAGE, page(), sys.argv[1:], COMMAND))
