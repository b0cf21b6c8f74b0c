"`course_lm.support.real`: models out of wheels. Those here are small stand-ins, which pip finds in a folder."
import errno, hashlib, json, zipfile
from pathlib import Path

import pytest, torch

from course_lm.models import load_lm
from course_lm.support import machine, real
from course_lm.support.files import is_whole
from tests.hub_folders import distilbert_folder

TAGS = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def make_wheel(folder, name, files):
    "A wheel with these files, {name: bytes}, as pip wants one."
    folder.mkdir(exist_ok=True)
    path, info = folder / f"{name}-1.0-py3-none-any.whl", f"{name}-1.0.dist-info"
    told = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Dist: no-such-thing\n"
    own = {f"{info}/METADATA": told,
           f"{info}/WHEEL": TAGS, f"{info}/RECORD": ""}
    with zipfile.ZipFile(path, "w") as z:
        for at, what in {**files, **own}.items(): z.writestr(at, what)
    return path


@pytest.fixture
def place(tmp_path, monkeypatch):
    "No hub, an empty cache, and a pip that looks into one folder, where a stand-in for minilm's wheel lies."
    monkeypatch.setenv("COURSE_LM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    (tmp_path / "made").mkdir()
    distilbert_folder(tmp_path / "made", ["a film", "I saw it"])
    files = {p.name: p.read_bytes() for p in (tmp_path / "made").iterdir()}
    known = {f"stand_in/{n}": hashlib.sha256(b).hexdigest() for n, b in files.items()}
    monkeypatch.setitem(real.wheels, "minilm", real.Wheel("stand-in==1.0", known, .1))
    make_wheel(tmp_path / "wheels", "stand_in", {f"stand_in/{n}": b for n, b in files.items()})
    return tmp_path


def left(place): return [p for p in (place / "cache").rglob("*") if p.is_file() or p.name.startswith(".")]


def test_a_wheel_becomes_a_folder_once_and_nothing_is_installed(place, monkeypatch):
    model, tokenizer = load_lm("minilm", "sequence-classification")
    folder = place / "cache" / "models" / "minilm"
    assert is_whole(folder) and not list(folder.glob("**/*.whl"))
    made = {p.name for p in (place / "made").iterdir()}
    assert {p.name for p in folder.iterdir()} == made | {".course_lm.json"}
    assert sorted(model.load_report.new) and not [k for k in model.load_report.new if "transformer" in k]
    with pytest.raises(ModuleNotFoundError): __import__("stand_in")
    monkeypatch.setattr(real, "fetch", None)  # the second time nobody is asked
    again, _ = load_lm("minilm", "sequence-classification")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters()))
    assert machine.at_hand("minilm")


def half(path): path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])
def other_bytes(path):
    whole = path.read_bytes()
    at = whole.index(b'"vocab_size"')  # of config.json, which is stored as it is
    path.write_bytes(whole[:at] + b'"vocab_sizE"' + whole[at + 12:])
def without(path): make_wheel(path.parent, "stand_in", {"stand_in/config.json": "{}"})
def another(path):
    with zipfile.ZipFile(path) as z: held = {n: z.read(n) for n in z.namelist() if n.startswith("stand_in/")}
    make_wheel(path.parent, "stand_in", held | {"stand_in/model.safetensors": b"other numbers"})
def gone(path): path.unlink()


@pytest.mark.parametrize("harm, said", [
    (half, "pip does not give stand-in==1.0"), (gone, "pip does not give stand-in==1.0"),
    (other_bytes, "is broken"),
    (without, "is not the file that it was|is not the wheel that it was"),
    (another, r"model.safetensors in .*whl is not the file that it was \(SHA-256")])
def test_a_bad_wheel_gets_one_sentence_and_leaves_nothing(place, harm, said):
    harm(next((place / "wheels").glob("*.whl")))
    with pytest.raises(OSError, match=f"minilm cannot be had.*({said}).*Nothing was kept.*load_lm") as e:
        load_lm("minilm", "sequence-classification")
    assert "\n" not in str(e.value) and not left(place)
    assert not machine.at_hand("minilm")


def test_a_download_that_stops_half_way(place, monkeypatch):
    def stopped(asked, folder):
        path = folder / "stand_in-1.0-py3-none-any.whl"
        path.write_bytes(next((place / "wheels").glob("*.whl")).read_bytes()[:1000])
        return path
    monkeypatch.setattr(real, "fetch", stopped)
    with pytest.raises(OSError, match="minilm cannot be had.*is broken.*Nothing was kept"):
        real.from_wheel("minilm")
    assert not left(place)


@pytest.mark.parametrize("where", ["pip", "taking out", "at the end"])
def test_a_full_disk(place, monkeypatch, where):
    full = OSError(errno.ENOSPC, "No space left on device")
    def refuse(*args, **kw): raise full
    if where == "pip":
        class Said: returncode, stderr = 1, "ERROR: Could not install: [Errno 28] No space left on device"
        monkeypatch.setattr(real.subprocess, "run", lambda *args, **kw: Said)
    elif where == "taking out": monkeypatch.setattr(real, "take_out", refuse)
    else: monkeypatch.setattr("course_lm.support.files._sync", refuse)
    with pytest.raises(OSError, match="no room for minilm.*COURSE_LM_CACHE.*Nothing was kept") as e:
        load_lm("minilm", "sequence-classification")
    assert e.value.errno == errno.ENOSPC and not left(place)


def test_the_cache_folder_cannot_be_made(place, monkeypatch):
    (place / "file").write_text("in the way")
    monkeypatch.setenv("COURSE_LM_CACHE", str(place / "file" / "cache"))
    with pytest.raises(OSError, match="minilm cannot be put into") as e: real.from_wheel("minilm")
    assert "\n" not in str(e.value)


def test_a_head_that_there_is_not_is_refused_before_anything_is_fetched(place, monkeypatch):
    monkeypatch.setattr(real, "from_wheel", None)
    for head in ("causal", "masked"):
        with pytest.raises(ValueError, match=f"minilm has no head.*head='{head}'.*sequence-classification"):
            load_lm("minilm", head)
    with pytest.raises(ValueError, match="smollm2 is a causal model"): load_lm("smollm2", "masked")


def test_gguf_is_asked_for_before_a_download(place, monkeypatch):
    monkeypatch.setattr(real, "find_spec", lambda name: None)
    monkeypatch.setattr(real, "fetch", None)
    with pytest.raises(OSError, match="smollm2 cannot be had.*pip install gguf"): load_lm("smollm2")
    assert not left(place)


def test_rounded_numbers_are_saved_as_plain_ones(tmp_path, monkeypatch):
    import transformers
    from transformers import LlamaConfig, LlamaForCausalLM
    config = LlamaConfig(vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
                         intermediate_size=8, tie_word_embeddings=True, max_position_embeddings=77)
    rounded = LlamaForCausalLM(config)
    rounded.config.quantization_config = {"quant_method": "gguf"}  # with it, save_pretrained refuses
    asked = {}
    def give(folder, **kw):
        asked.update(kw, folder=folder)
        return rounded
    class Words:
        def save_pretrained(self, folder):
            (Path(folder) / "tokenizer.json").write_text(str(self.model_max_length))
    words = Words()
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", give)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda folder, **kw: words)
    real.from_gguf(tmp_path / "any.gguf", tmp_path / "out")
    assert asked["gguf_file"] == "any.gguf" and asked["trust_remote_code"] is False
    assert "quantization_config" not in json.loads((tmp_path / "out" / "config.json").read_text())
    assert (tmp_path / "out" / "tokenizer.json").read_text() == "77"
    saved = LlamaForCausalLM.from_pretrained(tmp_path / "out")
    assert all(torch.equal(a, b) for a, b in zip(rounded.parameters(), saved.parameters()))


def test_the_hubs_cache_comes_first_and_its_links_are_followed(place, monkeypatch):
    "As the hub lays it out: snapshots of links into a folder of blobs."
    monkeypatch.setattr(real, "from_wheel", None)
    at = place / "hub" / "models--sentence-transformers--all-MiniLM-L6-v2"
    (at / "blobs").mkdir(parents=True)
    (at / "snapshots" / "abc").mkdir(parents=True)
    for p in (place / "made").iterdir():
        if p.suffix != ".safetensors": self_named(p, at)
    with pytest.raises(TypeError):  # no weights yet, so the wheel
        real.real_model("minilm", "sequence-classification")
    assert not machine.at_hand("minilm")
    self_named(place / "made" / "model.safetensors", at)
    model, tokenizer = load_lm("minilm", "sequence-classification")
    assert machine.at_hand("minilm") and model.load_report.left_out
    assert real.real_model("minilm", "sequence-classification") == at / "snapshots" / "abc"


def self_named(path, at):
    name = hashlib.sha256(path.read_bytes()).hexdigest()
    (at / "blobs" / name).write_bytes(path.read_bytes())
    (at / "snapshots" / "abc" / path.name).symlink_to(Path("../../blobs") / name)


def test_where_the_hub_answers_its_name_is_used(place, monkeypatch):
    monkeypatch.setattr(real, "on_hub", lambda name: True)
    assert real.real_model("smollm2") == machine.hub_names["smollm2"]


def test_what_is_pinned():
    for name, wheel in real.wheels.items():
        assert name in machine.hub_names and "==" in wheel.asked and wheel.gigabytes > 0
        assert all(len(x) == 64 and int(x, 16) for x in wheel.files.values())
        assert any(f.endswith((".safetensors", ".gguf")) for f in wheel.files)
