"""Laws that hold for all inputs, not for examples: each is tried on inputs that hypothesis makes up.

In `make test` the inputs are the same each time. `LAWS=free pytest tests/test_laws.py` draws new ones, and
`LAWS=2000` tries so many for each law; `--hypothesis-seed=N` repeats a draw.
"""
import html, json, math, os, random, re
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from course_lm.baselines import imdb_splits, near_duplicates, wilson_interval
from course_lm.chunking import chunk_dataset, chunk_ids, lm_datasets
from course_lm.classification import LengthBucketedSampler
from course_lm.data import python_docs, train_tokenizer
from course_lm.denoising import SentencePermutation, SpanCorruption, TokenDeletion, WholeWordMasking
from course_lm.finetuning import ShuffledBatches
from course_lm.labels import BertMasking, CausalLabels, LMCollator
from course_lm.models import new_model, tiny_bert_config, tiny_gpt_config
from course_lm.ngram import NGramLM
from course_lm.packing import pack_dataset, segment_mask
from course_lm.perplexity import Perplexity, evaluate_lm
from course_lm.policies import POLICIES, plan_chunks
from course_lm.pretraining import batch_indices
from course_lm.reviews import review_votes, show_review
from course_lm.scoring import score_texts, show_surprisal, sliding_perplexity, surprisal
from course_lm.scratch import deduplicate, show_tokens
from course_lm.streaming import chunk_stream
from course_lm.support.words import folded, sentence_spans, words_of
from course_lm.windows import TokenBudgetSampler, encode_head_tail, encode_windows

asked = os.environ.get("LAWS", "")
FACTOR = int(asked) if asked.isdecimal() else None


def law(examples, **strategies):
    def decorate(f):
        how = settings(max_examples=FACTOR or examples, deadline=None, database=None, derandomize=not asked,
                       suppress_health_check=list(HealthCheck))
        return how(given(**strategies)(f))
    return decorate


DOCS = st.lists(st.lists(st.integers(2, 60), max_size=9), min_size=1, max_size=12)
TAILS = st.sampled_from(["drop", "keep", "pad"])
LAYOUTS = ("list arrays dataset large sliced shuffled joined filtered sorted repeated pieces").split()
SIGNS = "aé \n\t<>&\"'\u200b\u0301😀字\r\u2028\x00$_.!?ह"
TEXT = st.text(max_size=40) | st.text(st.sampled_from(SIGNS), max_size=30)


def lay(docs, layout, seed):
    "(what chunk_dataset gets, the documents in its order)"
    from datasets import Dataset, Features, LargeList, List, Value, concatenate_datasets
    if layout == "list": return docs, docs
    if layout == "arrays": return [np.array(d, np.int32) for d in docs], docs
    kind = LargeList(Value("int64")) if layout == "large" else List(Value("int32"))
    features, chance, n = Features({"input_ids": kind}), random.Random(seed), len(docs)
    ds = Dataset.from_dict({"input_ids": docs}, features=features)
    if layout == "joined":
        order = chance.sample(range(n), n)
        return concatenate_datasets([ds, ds.select(order)]), docs + [docs[i] for i in order]
    if layout == "pieces":
        parts = [Dataset.from_dict({"input_ids": [d]}, features=features) for d in docs]
        return concatenate_datasets(parts), docs
    if layout == "sorted":
        ds = ds.add_column("k", [len(d) for d in docs]).sort("k", reverse=True)
        return ds, [list(d) for d in ds["input_ids"]]
    begin = chance.randrange(n)
    rows = {"sliced": range(begin, n), "shuffled": chance.sample(range(n), n),
            "filtered": [i for i in range(n) if i == 0 or chance.random() < .7],
            "repeated": [chance.randrange(n) for _ in range(2*n)]}.get(layout, range(n))
    return ds.select(rows), [docs[i] for i in rows]


def chunks_of(stream, size, step, tail, pad=None):
    "The slow loop."
    if tail == "drop": return [stream[i:i+size] for i in range(0, len(stream)-size+1, step)]
    out, i = [], 0
    while True:
        part = stream[i:i+size]
        out.append(part + ([pad]*(size-len(part)) if tail == "pad" else []))
        if i + size >= len(stream): return out
        i += step


def fit(stride, size):
    "A stride that does not jump over tokens; None stays."
    return None if stride is None else 1 + (stride-1) % size


# 1 to 4: chunks


@law(150, ids=st.lists(st.integers(0, 99), max_size=60), size=st.integers(2, 12),
     stride=st.none() | st.integers(1, 12), tail=TAILS)
def test_chunk_ids_is_the_slow_loop(ids, size, stride, tail):
    stride = fit(stride, size)
    if len(ids) < (size if tail == "drop" else 1):
        with pytest.raises(ValueError): chunk_ids(ids, size, tail, stride, 0)
        return
    found = [list(map(int, c)) for c in chunk_ids(np.array(ids), size, tail, stride, 0)]
    assert found == chunks_of(ids, size, stride or size, tail, 0)


@law(60, docs=DOCS, layout=st.sampled_from(LAYOUTS), seed=st.integers(0, 99), size=st.integers(2, 9),
     stride=st.none() | st.integers(1, 9), tail=TAILS, eos=st.booleans(), around=st.booleans())
def test_chunk_dataset_is_the_slow_loop(docs, layout, seed, size, stride, tail, eos, around):
    ds, docs = lay(docs, layout, seed)
    stride, front, back = fit(stride, size), [3]*around, [4]*around
    stream = [t for d in docs for t in (d + [1] if eos and d else d)]
    how = dict(tail=tail, stride=stride, eos_id=1 if eos else None, pad_id=0,
               specials=(front, back) if around else None)
    if len(stream) < (size if tail == "drop" else 1):
        with pytest.raises(ValueError): chunk_dataset(ds, size+2*around, **how)
        return
    out = chunk_dataset(ds, size+2*around, **how)
    want = chunks_of(stream, size, stride or size, "keep" if tail == "pad" else tail)
    want, whole = [front + c + back for c in want], size + 2*around
    if tail == "pad":
        assert list(out["attention_mask"]) == [[1]*len(c) + [0]*(whole-len(c)) for c in want]
        want = [c + [0]*(whole-len(c)) for c in want]
    assert list(out["input_ids"]) == want


@law(40, docs=DOCS, layout=st.sampled_from(LAYOUTS), seed=st.integers(0, 99), size=st.integers(2, 9),
     long=st.sampled_from(["split", "truncate"]))
def test_packing_keeps_every_document_once_and_whole(docs, layout, seed, size, long):
    ds, docs = lay(docs, layout, seed)
    if not any(docs): return
    found = []
    for r in pack_dataset(ds, size, long, pad_id=99):
        ids, places, segments = r["input_ids"], r["position_ids"], r["segment_ids"]
        assert len(ids) == size and [int(x > 0) for x in segments] == r["attention_mask"]
        assert all(i == 99 and p == 0 for i, p, x in zip(ids, places, segments) if x == 0)
        for k in range(1, max(segments)+1):
            at = [i for i, x in enumerate(segments) if x == k]
            assert at == list(range(at[0], at[-1]+1)) and [places[i] for i in at] == list(range(len(at)))
            found.append([ids[i] for i in at])
    want = [d[i:i+size] for d in docs for i in (range(0, len(d), size) if long == "split" else [0]*bool(d))]
    assert sorted(found) == sorted(want)


@law(40, docs=DOCS, layout=st.sampled_from(["list", "arrays", "dataset", "shuffled", "pieces"]),
     seed=st.integers(0, 9), size=st.integers(2, 7), tail=TAILS, eos=st.booleans(), buffer=st.integers(1, 5),
     epoch=st.integers(0, 3))
def test_a_stream_goes_on_from_every_state(docs, layout, seed, size, tail, eos, buffer, epoch):
    ds, docs = lay(docs, layout, seed)
    how = dict(tail=tail, eos_id=1 if eos else None, pad_id=0, shuffle_buffer=buffer, seed=seed)
    stream = [t for d in docs for t in (d + [1] if eos and d else d)]
    if len(stream) < (size if tail == "drop" else 1):
        with pytest.raises(ValueError): list(chunk_stream(ds, size, **how))
        return
    source = chunk_stream(ds, size, **how)
    source.set_epoch(epoch)
    states, out = [json.dumps(source.state_dict())], []
    for chunk in source:
        out.append(chunk["input_ids"].tolist())
        states.append(json.dumps(source.state_dict()))
    want = chunks_of(stream, size, size, tail, 0)
    assert sorted(out) == sorted(want) and (buffer > 1 or out == want)
    for k, state in enumerate(states): # the last one stands behind the last chunk, of a Dataset too
        other = chunk_stream(ds, size, **how)
        other.load_state_dict(json.loads(state))
        rest = [chunk["input_ids"].tolist() for chunk in other]
        assert rest == out[k:] or k == len(out) and rest in ([], out)


# 5 to 7: labels and scores

tok, mtok = (train_tokenizer(python_docs()[:40], 400, masked=masked) for masked in (False, True))
t5 = train_tokenizer(python_docs()[:40], 400)
t5.add_special_tokens({"extra_special_tokens": [f"<extra_id_{i}>" for i in range(60)]})
V = min(len(tok), len(mtok))
ROWS = st.lists(st.lists(st.integers(0, V-1), min_size=1, max_size=12), min_size=1, max_size=5)
STRATEGIES = dict(causal=(tok, CausalLabels()), bert=(mtok, BertMasking(.5)),
                  whole=(mtok, WholeWordMasking(.5)), span=(t5, SpanCorruption(.3)),
                  deletion=(t5, TokenDeletion(.3)), permutation=(t5, SentencePermutation()))
FORMS = dict(list=lambda r: {"input_ids": list(r)}, array=lambda r: {"input_ids": np.array(r)},
             tensor=lambda r: {"input_ids": torch.tensor(r)}, plain=list)


@pytest.fixture(autouse=True)
def right_again():
    yield
    for made in (tok, mtok, t5): made.padding_side = "right"


@law(80, rows=ROWS, kind=st.sampled_from([*STRATEGIES]), side=st.sampled_from(["left", "right"]),
     form=st.sampled_from([*FORMS]), seed=st.none() | st.integers(0, 5), multiple=st.sampled_from([None, 4]))
def test_the_collator_changes_nothing_and_scores_no_pad(rows, kind, side, form, seed, multiple):
    made, strategy = STRATEGIES[kind]
    made.padding_side = side
    examples = [FORMS[form](r) for r in rows]
    batch = LMCollator(made, strategy, seed=seed, pad_to_multiple_of=multiple)(examples)
    for e, row in zip(examples, rows):
        assert list(map(int, e["input_ids"] if isinstance(e, dict) else e)) == row
    ids, real, labels = (batch[k] for k in ("input_ids", "attention_mask", "labels"))
    assert ids.dtype == labels.dtype == torch.int64
    if kind not in ("causal", "bert", "whole"): return
    assert ids.shape == labels.shape and ids.shape[1] % (multiple or 1) == 0
    assert (labels[real == 0] == -100).all() and real.sum(1).tolist() == [len(r) for r in rows]
    special = set(made.all_special_ids)
    for row, read, asked in zip(rows, [i[m == 1].tolist() for i, m in zip(ids, real)],
                                [i[m == 1].tolist() for i, m in zip(labels, real)]):
        for true, shown, answer in zip(row, read, asked):
            assert answer in (-100, true) and (shown == true or answer == true)
            if kind != "causal": assert answer == -100 or true not in special
    if kind == "causal": assert (labels[:, 1:] != -100).equal((real[:, 1:] == 1) & (real[:, :-1] == 1))


def model_of(config): return new_model(config, seed=0).eval()


lm = model_of(tiny_gpt_config(tok, n_layer=1, n_head=2, n_embd=16, max_length=32))
mlm = model_of(tiny_bert_config(mtok, n_layer=1, n_head=2, n_embd=16, max_length=32))


@law(25, rows=st.lists(st.lists(st.integers(0, V-1), min_size=1, max_size=12), min_size=2, max_size=7),
     cut=st.data(), side=st.sampled_from(["left", "right"]))
def test_a_perplexity_does_not_depend_on_batches(rows, cut, side):
    if max(map(len, rows)) < 2: return
    tok.padding_side = side

    def scores(groups):
        metric, batches = Perplexity(), [LMCollator(tok)(g) for g in groups]
        for b in batches:
            places = (b["attention_mask"].cumsum(1) - 1).clamp(min=0)
            how = dict(input_ids=b["input_ids"], attention_mask=b["attention_mask"], position_ids=places)
            with torch.no_grad(): metric.update(lm(**how).logits, b["labels"])
        return metric.score, evaluate_lm(lm, batches)
    order = cut.draw(st.permutations(rows))
    k = cut.draw(st.integers(1, len(rows)-1))
    found = [s for groups in ([rows], [[r] for r in rows], [order[:k], order[k:]]) for s in scores(groups)]
    assert {s.tokens for s in found} == {sum(len(r)-1 for r in rows)}
    assert max(s.nats for s in found) - min(s.nats for s in found) < 1e-4*found[0].nats


@law(30, ids=st.lists(st.integers(0, V-1), min_size=2, max_size=60), max_length=st.integers(2, 32),
     stride=st.integers(1, 31), batch_size=st.integers(1, 5), bos=st.booleans())
def test_sliding_is_the_strided_loop(ids, max_length, stride, batch_size, bos):
    room = max_length - bos
    stride, lead, nats, n, done = 1 + stride % room, [tok.bos_token_id]*bos, 0., 0, 0
    for begin in range(0, len(ids), stride):
        end = min(begin+room, len(ids))
        x = torch.tensor([lead + ids[begin:end]])
        with torch.no_grad(): logp = lm(x).logits.double().log_softmax(-1)
        for j in range(max(1, len(lead) + done - begin), x.shape[1]):
            nats, n = nats - logp[0, j-1, x[0, j]].item(), n + 1
        done = end
        if end == len(ids): break
    if not n:
        with pytest.raises(ValueError): sliding_perplexity(lm, ids, max_length, stride)
        return
    found = sliding_perplexity(lm, ids, max_length, stride, batch_size, tok.bos_token_id if bos else None)
    assert found.tokens == n and abs(found.nats - nats) < 1e-3*n


# 8 to 10: counts and orders


@law(80, docs=st.lists(st.lists(st.integers(0, 6), max_size=12), min_size=1, max_size=5), n=st.integers(1, 5),
     smoothing=st.sampled_from(NGramLM.smoothings), context=st.lists(st.integers(0, 6), max_size=6),
     k=st.floats(1e-3, 10), discount=st.none() | st.floats(.01, 1), size=st.integers(7, 12))
def test_n_gram_probabilities_add_up(docs, n, smoothing, context, k, discount, size):
    if not any(docs): return
    model = NGramLM(n, smoothing, k, discount, size).fit(docs)
    p = model.probs(context)
    assert p.min() >= 0 and abs(p.sum() - 1) < 1e-9
    if context:
        at_once, alone = model.logprobs(context)[-1], model.probs(context[:-1])[context[-1]]
        assert abs(math.exp(at_once) - alone) < 1e-9


@law(60, lengths=st.lists(st.integers(0, 40), min_size=1, max_size=60), size=st.integers(1, 9),
     pool=st.none() | st.integers(1, 5), shuffle=st.booleans(), seed=st.integers(0, 5),
     epoch=st.integers(0, 5), at=st.integers(0, 30), budget=st.booleans())
def test_samplers_give_each_row_once_and_go_on(lengths, size, pool, shuffle, seed, epoch, at, budget):
    if not any(lengths): return # refused by name
    most = max(40, size*8)

    def made():
        if budget: return TokenBudgetSampler(lengths, most, pool, shuffle, seed)
        return LengthBucketedSampler(lengths, size, pool, shuffle, seed)
    one = made()
    one.set_epoch(epoch)
    out = list(one)
    assert sorted(i for b in out for i in b) == list(range(len(lengths))) and len(out) == len(one)
    if budget: assert all(len(b)*max(lengths[i] for i in b) <= most for b in out)
    one, two = made(), made()
    one.set_epoch(epoch)
    first = list(islice(one, min(at, len(out))))
    two.load_state_dict(json.loads(json.dumps(one.state_dict())))
    assert first + list(two) == out or len(first) == len(out)


@law(60, n=st.integers(1, 50), size=st.integers(1, 60), seed=st.integers(0, 9), epoch=st.integers(0, 5))
def test_shuffled_batches_and_batch_indices(n, size, seed, epoch):
    batches = ShuffledBatches(n, size, seed)
    batches.set_epoch(epoch)
    out = list(batches)
    assert sorted(sum(out, [])) == list(range(n)) and len(out) == len(batches)
    for start in range(len(out)):
        batches.set_epoch(epoch, start)
        assert list(batches) == out[start:]
    if size > n: return
    rows = [r for i in range(n//size) for r in batch_indices(epoch*(n//size)+i, n, size, seed).tolist()]
    assert len(set(rows)) == len(rows) == n//size*size


# 11 to 19: texts, splits, plans, windows


def bare(page): return html.unescape(re.sub(r"<[^>]*>", "", page))


@law(25, text=TEXT)
def test_a_picture_of_a_text_holds_all_of_it(text):
    if not text or not text.isprintable() and "\ud7ff" < max(text) < "\ue000": return
    for model, made in ((lm, tok), (mlm, mtok)):
        try: found = surprisal(model, made, text)
        except ValueError as e: assert "empty" in str(e) or "surrogate" in str(e)
        else:
            assert bare(show_surprisal(found).data).count(text) > 0 or "\r" in text
            assert "".join(found.frame.token.drop_duplicates()) in text or len(found.frame) > 1


SOME = st.text(st.sampled_from("ab cd\n.é😀字"), min_size=1, max_size=30)


@law(15, texts=st.lists(SOME, min_size=1, max_size=4),
     size=st.integers(1, 4), stride=st.none() | st.integers(1, 8), length=st.integers(12, 30))
def test_scores_do_not_depend_on_batches(texts, size, stride, length):
    for model, made, step in ((lm, tok, stride), (mlm, mtok, None)):
        one, two = (score_texts(model, made, texts, length, step, b) for b in (16, size))
        three = [score_texts(model, made, [t], length, step, 1)[0] for t in texts]
        for text, *scores in zip(texts, one, two, three):
            assert len({s.tokens for s in scores}) == 1 and {s.bytes for s in scores} == {len(text.encode())}
            assert max(s.nats for s in scores) - min(s.nats for s in scores) < 1e-3


@law(30, rows=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 6)), min_size=12, max_size=40),
     by=st.sampled_from(["movie", "position"]), seed=st.none() | st.integers(0, 5),
     shares=st.sampled_from([(.5, .25, .25), (.7, .1, .2), (.34, .33, .33)]))
def test_splits_are_a_partition(rows, by, seed, shares):
    from datasets import Dataset
    columns = dict(text=[f"t{i}" for i in range(len(rows))], label=[r[0] for r in rows],
                   movie=[f"m{r[1]}" for r in rows])
    try: out = imdb_splits(Dataset.from_dict(columns), by, shares, seed)
    except ValueError: return
    assert sorted(t for part in out.values() for t in part["text"]) == sorted(columns["text"])
    movies = [set(part["movie"]) for part in out.values()]
    if by == "movie": assert sum(map(len, movies)) == len(set.union(*movies))
    for part in out.values():
        assert [rows[int(t[1:])][0] for t in part["text"]] == list(part["label"])


@law(80, lengths=st.lists(st.integers(0, 30), min_size=1, max_size=30), size=st.integers(2, 20),
     policy=st.sampled_from([*POLICIES]), tail=TAILS, batch_size=st.integers(1, 7))
def test_the_accounts_of_a_plan_add_up(lengths, size, policy, tail, batch_size):
    if not sum(lengths): return
    r = plan_chunks(lengths, size, policy, tail=tail, batch_size=batch_size).report
    assert r.kept + r.dropped == r.tokens == sum(lengths)
    assert r.kept + r.repeated + r.padding == r.positions
    assert r.documents_whole + r.documents_split + r.documents_lost == r.documents
    assert r.documents == sum(n > 0 for n in lengths)
    assert min(r.kept, r.dropped, r.repeated, r.padding) >= 0


@law(30, texts=st.lists(st.text(st.sampled_from("abc de.!\n字"), max_size=50), min_size=1, max_size=6),
     length=st.integers(4, 20), stride=st.none() | st.integers(1, 18), head=st.floats(0, 1))
def test_windows_cover_and_head_and_tail_are_kept(texts, length, stride, head):
    room = length - 2
    windows = encode_windows(texts, mtok, length, None if stride is None else fit(stride, room))
    ends = encode_head_tail(texts, mtok, length, head)
    for k, text in enumerate(texts):
        ids, seen, first = mtok(text, add_special_tokens=False)["input_ids"], {}, round(head*room)
        for row, review, start in zip(windows["input_ids"], windows["review"], windows["start"]):
            if review == k: assert all(seen.setdefault(start+j, x) == x for j, x in enumerate(row[1:-1]))
        assert [seen[j] for j in range(len(ids))] == ids and len(seen) == len(ids)
        kept = ids if len(ids) <= room else ids[:first] + ids[len(ids)-(room-first):]
        assert list(ends["input_ids"][k][1:-1]) == kept and ends["truncated"][k] == (len(ids) > room)


@law(150, correct=st.integers(0, 1000), wrong=st.integers(0, 1000), level=st.floats(.01, .9999))
def test_wilsons_interval_holds_the_share(correct, wrong, level):
    n = correct + wrong
    if not n: return
    low, high = wilson_interval(correct, n, level)
    assert 0 <= low <= correct/n + 1e-12 and correct/n - 1e-12 <= high <= 1


@law(30, docs=st.lists(st.text(st.sampled_from("ab c"), max_size=8), min_size=1, max_size=8),
     valid=st.lists(st.text(st.sampled_from("ab c"), max_size=8), min_size=1, max_size=5))
def test_train_and_valid_share_nothing(docs, valid):
    try: out = lm_datasets(docs, valid, tok, 4, tail="pad", on_shared="drop")
    except ValueError as e: # where nothing is left, too, in one sentence
        assert "\n" not in str(e)
        return
    shared = {" ".join(d.split()) for d in valid} - {""}
    rows = [tok(d)["input_ids"] for d in docs if " ".join(d.split()) not in shared]
    want = [t for ids in rows if ids for t in [*ids, tok.eos_token_id]]
    found = zip(out["train"]["input_ids"], out["train"]["attention_mask"])
    assert [t for ids, real in found for t, k in zip(ids, real) if k] == want


@law(100, rows=st.lists(st.lists(st.integers(0, 3), min_size=4, max_size=4), min_size=1, max_size=3),
     causal=st.booleans())
def test_segment_mask_by_hand(rows, causal):
    found = segment_mask(torch.tensor(rows), causal)
    for b, row in enumerate(rows):
        for i, j in np.ndindex(4, 4):
            assert (found[b, 0, i, j] == 0) == (row[i] == row[j] and (j <= i or not causal))


@law(80, texts=st.lists(TEXT, min_size=1, max_size=5))
def test_text_functions_take_any_text(texts):
    texts = [t for t in texts if t.encode(errors="replace").decode() == t]
    if not texts: return
    assert set(deduplicate(texts)) <= set(texts)
    near_duplicates(texts, texts, n=2)
    for t in texts:
        review_votes(t), show_review(t), words_of(t), sentence_spans(t), show_tokens(tok, t)
        assert folded(folded(t)) == folded(t)
