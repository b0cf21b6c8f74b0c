"""What several lessons stand on."""
import numpy as np

from tests.fuzz.calls import Call


def calls(w): return [*arrow(w), *shown(w), *inputs(w), *others(w)]


def arrow(w):
    yield Call("support.arrow:document_lengths", dict(ds=w.rows))
    pad = dict(rows=[np.array([1, 2]), np.array([3])], value=0, multiple=1, side="right", length=3)
    yield Call("support.arrow:pad_rows", pad)
    yield Call("support.arrow:ChunkMatrix", dict(ds=w.chunks["train"]), then=lambda m: m[0])


def shown(w):
    yield Call("support.html:pale", dict(colour="blue"))
    yield Call("support.html:tint", dict(value=1., most=2., two_ends=True))
    yield Call("support.html:visible", dict(text="a b"))
    piece = dict(text="a", colour="blue", value=.5, title="t", above="b", below="c", width=.5, framed=True,
                 marked=True, faint=True)
    yield Call("support.html:Piece", piece)
    text = dict(pieces=["a", ("b", 1)], scale="bits", most=2., two_ends=True, legend={"a": "blue"}, title="t",
                note="n", mono=True)
    yield Call("support.html:show_text", text)


def inputs(w):
    yield Call("support.inputs:max_length_of", dict(of=w.lm), star=True)
    yield Call("support.inputs:check_chunk_size", dict(chunk_size=16, of=w.lm), star=True)
    yield Call("support.inputs:is_causal", dict(model=w.lm, trained=False))
    yield Call("support.inputs:special_table", dict(tokenizer=w.tok))
    yield Call("support.inputs:check_vocab", dict(model=w.lm, tokenizer=w.tok, where="here", but=None))


def others(w):
    def written(folder):
        with folder as new: (new/"a").write_text("a")
    def entered(block):
        with block: return np.random.rand()
    yield Call("support.files:check_folder", dict(path="new", name="path"))
    yield Call("support.files:whole_folder", dict(path="new", name="path"), then=written)
    yield Call("support.files:fingerprint", dict(parts="a"), star=True)
    yield Call("support.files:text_key", dict(text="a text"))
    yield Call("support.kinds:check_texts", dict(texts=["a"], name="texts"))
    yield Call("support.machine:processor", dict(info="/proc/cpuinfo"))
    yield Call("support.machine:at_hand", dict(name="no-such/model", other="no-such/texts"))
    yield Call("support.randomness:seeded", dict(seed=1, parts=2), star=True)
    yield Call("support.randomness:epoch_order", dict(n=5, seed=1, epoch=0))
    yield Call("support.randomness:numpy_generator", dict(generator=3))
    yield Call("support.randomness:own_streams", dict(device="cpu", seed=1), then=entered)
    yield Call("support.randomness:evaluating", dict(model=w.lm), then=entered)
