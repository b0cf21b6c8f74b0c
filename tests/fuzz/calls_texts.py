"""Lessons 0, 1 and 2: texts, tokenizers, models, n-grams, chunks."""
import numpy as np

from course_lm.ngram import NGramLM
from course_lm.streaming import chunk_stream
from tests.fuzz.calls import Call

SHAPE = dict(n_layer=1, n_head=2, n_embd=16, max_length=32, dropout=0.)


def calls(w): return [*data(w), *models(w), *ngrams(w), *chunking(w), *policies(w), *streams(w)]


def data(w):
    yield Call("data:python_docs", dict(live=False))
    yield Call("data:python_source", dict(max_files=3))
    tokenizer = dict(texts=w.texts, vocab_size=300, kind="bpe", masked=False, min_count=2)
    yield Call("data:train_tokenizer", tokenizer)
    for kind in ("wordpiece", "unigram", "word"):
        size = 300 if kind == "unigram" else 150
        yield Call("data:train_tokenizer", {**tokenizer, "kind": kind, "vocab_size": size}, note=kind)
    yield Call("data:load_imdb", dict(source=str(w.folder/"imdb.csv")))
    yield Call("data:load_wikitext", dict(source=str(w.folder/"wiki"), articles=False))
    yield Call("reviews:reviews", dict(n=4, seed=1, length="short"))
    for name in ("review_votes", "show_review"):
        yield Call(f"reviews:{name}", dict(text=w.reviews["text"][0]))
    yield Call("cli:doctor", dict(network=False))
    yield Call("cli:main", dict(argv=[]))


def models(w):
    yield Call("models:reference_texts", dict(model="tiny"))
    yield Call("models:reference_texts", dict(model=w.folder/"lm"), note="folder")
    yield Call("models:layer_groups", dict(model=w.lm))
    yield Call("models:tiny_gpt_config", dict(tokenizer=w.tok, **SHAPE))
    yield Call("models:tiny_bert_config", dict(tokenizer=w.mtok, **SHAPE))
    yield Call("models:new_model", dict(config=w.lm.config, seed=1, tokenizer=w.tok))
    save = dict(model=w.lm, tokenizer=w.tok, folder="out/lm", dtype=None, card="card", reference_texts=["a"])
    yield Call("models:save_lm", save)
    yield Call("models:add_tokens", dict(model=w.lm, tokenizer=w.tok, tokens=["qqq", "rrr"], special=False))
    yield Call("models:fix_pad", dict(model=w.lm, tokenizer=w.tok))
    load = dict(name=str(w.folder/"lm"), head="causal", labels=None, seed=1, tokenizer=w.tok)
    yield Call("models:load_lm", load)
    classes = dict(head="sequence-classification", labels=["a", "b"])
    yield Call("models:load_lm", load | classes, note="head")
    yield Call("models:load_lm", dict(name=(w.lm, w.tok), head="causal", labels=None), note="pair")


def ngrams(w):
    def scored(model): return model.fit(w.ids).score(w.ids)
    made = dict(n=2, smoothing="kneser-ney", k=1., discount=.5, vocab_size=len(w.tok))
    yield Call("ngram:NGramLM", made, then=scored)
    yield Call("ngram:NGramLM", dict(n=2, smoothing="add-k", k=1.), then=scored, note="add-k")
    yield Call("ngram:NGramLM.fit", dict(ids=w.ids), on=NGramLM(2), then=lambda m: m.score(w.ids))
    for name in ("logprobs", "score"): yield Call(f"ngram:NGramLM.{name}", dict(ids=w.ids), on=w.ngram)
    yield Call("ngram:NGramLM.probs", dict(context=w.ids[0][:2]), on=w.ngram)
    yield Call("ngram:NGramLM.sample", dict(n=3, generator=0, prompt=w.ids[0][:2]), on=w.ngram)
    yield Call("ngram:guess_bits", dict(answer=1, guesses=[1, 2], sure=.5, rest=np.full(5, .2)))
    game = dict(ids=w.word_ids, vocab=w.words, models={"bigram": w.bigram}, positions=[3, 5])
    yield Call("ngram:NextWordGame", game, then=lambda g: g.guess("the", .5))
    yield Call("ngram:NextWordGame.guess", dict(words="the, of", sure=.5), on=w.game)
    source = dict(transition=None, n_states=4, order=1, seed=0, concentration=.2)
    yield Call("entropy:MarkovSource", source, then=lambda s: s.entropy_rate)
    table = dict(transition=[[.5, .5], [.2, .8]])
    yield Call("entropy:MarkovSource", table, then=lambda s: s.entropy_rate, note="table")
    yield Call("entropy:MarkovSource.sample", dict(n=5, generator=0), on=w.source)
    yield Call("entropy:MarkovSource.logprobs", dict(ids=[0, 1, 2, 3]), on=w.source)


def chunking(w):
    cut = dict(chunk_size=16, tail="pad", stride=8, pad_id=1)
    yield Call("chunking:chunk_ids", dict(ids=w.flat, **cut))
    how = dict(tokenizer=w.tok, add_eos=True, num_proc=None, text_column="text")
    tokenize = dict(ds=w.docs, keep=["text"], split_special_tokens=True, **how)
    yield Call("chunking:tokenize_dataset", tokenize)
    yield Call("chunking:tokenize_dataset", {**tokenize, "ds": w.texts, "keep": None}, note="list")
    yield Call("chunking:chunk_dataset", dict(ds=w.rows, **cut, eos_id=None, specials=None, model=w.lm))
    listed = dict(ds=[np.array(i) for i in w.ids], chunk_size=16, tail="keep", stride=None, eos_id=0)
    yield Call("chunking:chunk_dataset", {**listed, "specials": ([3], [4]), "model": 64}, note="list")
    yield Call("chunking:shared_documents", dict(train=w.docs, valid=w.texts[:2], text_column="text"))
    sets = dict(train=w.texts[:16], valid=w.texts[16:], tokenizer=w.tok, chunk_size=16, tail="drop",
                specials="auto", on_shared="error", add_eos=True, num_proc=None, text_column="text")
    yield Call("chunking:lm_datasets", sets)
    pack = dict(ds=w.rows, chunk_size=16, long="split", pad_id=0, model=w.lm)
    yield Call("packing:pack_dataset", pack)
    yield Call("packing:segment_mask", dict(segment_ids=w.segments, causal=True, dtype=None))


def policies(w):
    plan = dict(lengths=w.lengths, chunk_size=16, batch_size=4)
    whole = dict(policy="concatenate", tail="drop", stride=8, long="split")
    yield Call("policies:plan_chunks", plan | whole, then=lambda p: p.report)
    yield Call("policies:plan_chunks", plan | dict(policy="pack"), then=lambda p: p.report, note="pack")
    tokens = [str(i) for i in range(int(sum(w.lengths)))]
    show = dict(lengths=w.lengths, chunk_size=16, policy="pack", tokens=tokens, max_chunks=4, long="split")
    yield Call("policies:show_chunks", show)
    explore = dict(lengths=w.lengths, chunk_size=16, max_chunk_size=64, max_chunks=4)
    yield Call("policies:chunk_explorer", explore)
    yield Call("policies:policy_table", plan)
    yield Call("policies:split_leak", dict(lengths=w.lengths, chunk_size=16, valid=.2, seed=0))


def streams(w):
    docs = [np.array(i) for i in w.ids]
    stream = dict(docs=docs, chunk_size=8, tail="pad", eos_id=0, pad_id=1, shuffle_buffer=4, seed=1)
    yield Call("streaming:chunk_stream", stream, then=list)
    begun = chunk_stream(docs, 8)
    for _ in range(3): next(begun)
    new = chunk_stream(docs, 8)
    yield Call("streaming:ChunkStream.set_epoch", dict(epoch=1), on=new, then=lambda _: list(new))
    state = dict(state=begun.state_dict())
    yield Call("streaming:ChunkStream.load_state_dict", state, on=new, then=lambda _: list(new))
    suggest = dict(lengths=w.lengths, tokenizer=w.tok, memory=10**9, model=w.lm, batch_size=8, share=.5)
    yield Call("streaming:suggest_chunk_size", suggest)
