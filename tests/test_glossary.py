"Glossary and errata: in step with the lessons, and their links lead somewhere."
import re

import pytest

from scripts import glossary, records
from scripts.lessons import nbs
from tests.test_pages import anchors


def test_the_glossary_is_in_step_with_the_lessons():
    made = glossary.page()
    stored = glossary.PAGE.read_text(encoding="utf-8")
    assert stored == made, f"run `{glossary.COMMAND}`: it makes the page anew"


def test_every_record_is_on_the_page_of_records_and_read_by_somebody():
    stored = records.PAGE.read_text(encoding="utf-8")
    assert stored == records.page(), f"run `{records.COMMAND}`: it makes the page anew"
    names = {p.stem for p in records.KEPT.glob("*.json")}
    assert set(records.programs()) >= names >= set(records.shown()) and len(names) > 15
    outputs = {"for_real"}  # what it holds stands below the cells themselves
    assert names - set(records.shown()) - outputs <= {"checks", "labels", "perplexity"}, "shown by no lesson"


@pytest.mark.parametrize("page", ["glossary.md", "errata.md", "families.md", "leaves_out.md", "records.md"])
def test_links_of_a_page_lead_somewhere(page):
    text, broken = (nbs / page).read_text(encoding="utf-8"), []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:", link): continue
        file, _, anchor = link.partition("#")
        if not (nbs / file).exists() or anchor and anchor not in anchors(nbs / file): broken.append(link)
    assert not broken


def test_the_front_page_leads_to_both():
    front = (nbs / "index.ipynb").read_text(encoding="utf-8")
    pages = "glossary.md", "errata.md", "families.md", "leaves_out.md", "records.md"
    assert all(f"](../nbs/{page})" in front for page in pages)


def test_a_term_is_taken_with_the_sentence_that_says_what_it_is():
    text = "Join them first. The third is short. It's called the **tail**. A batch has no room for it."
    assert glossary.introduced(text) == [("tail", "The third is short. It's called the **tail**.", False)]
    alone = "The **stride** is how far one chunk starts from the next (e.g. 64):"
    assert glossary.introduced(alone) == [("stride", alone[:-1] + ".", True)]
    for no_term in ("**Next:** a page.", "**1.** Why?", "**(c)** is right.", "**DNA**: four letters.",
                    "| **adapters** | a few weights |", "**Split first.** No score tells you.",
                    "**This is a whole claim in bold**."):
        assert glossary.introduced(no_term) == [], no_term


def test_names_and_links_of_a_term():
    assert glossary.name_of("Tf-idf", "01") == "tf-idf"
    assert glossary.name_of("Zipf's law", "01") == "Zipf's law"
    assert glossary.name_of("rank", "23") != glossary.name_of("rank", "55")
    assert glossary.plain("A **b**, [see](#Here) [there](x.ipynb)", "20_a.ipynb") == \
        "A b, [see](20_a.ipynb#Here) [there](x.ipynb)"


def test_known_terms_are_there_once_and_in_order():
    names = list(glossary.terms())
    lower = [name.lower() for name in names]
    assert lower == sorted(lower) and len(set(lower)) == len(lower) > 80
    assert {"perplexity", "chunk", "teacher forcing", "catastrophic forgetting"} <= set(names)
    assert not set(lower) & glossary.NO_TERM
