import os

import pytest

from course_lm.support import machine as module
from course_lm.support.machine import at_hand, machine, processor, quiet, usable_cores

@pytest.mark.parametrize('text, name', [('processor: 0\nmodel name\t: Fine: 3000\n', 'Fine: 3000'),
                                        ('Processor : 0\nHardware : BCM2711\n', 'BCM2711'),
                                        ('processor : 0\nBogoMIPS : 48\n', None), ('model name :\n', None),
                                        (None, None)])
def test_the_processor_has_a_name_everywhere(tmp_path, monkeypatch, text, name):
    info = tmp_path/'cpuinfo'
    if text is not None: info.write_text(text)
    monkeypatch.setattr(module.platform, 'processor', lambda: '')
    monkeypatch.setattr(module.platform, 'machine', lambda: 'aarch64')
    assert processor(info) == (name or 'aarch64')

def test_machine_names_cores_and_gpu(monkeypatch):
    import torch
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda: 'Some GPU')
    monkeypatch.setattr(os, 'cpu_count', lambda: 1)
    assert machine().endswith(', 1 core, Some GPU')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(os, 'cpu_count', lambda: 8)
    assert ', 8 cores' in machine() and 'Some GPU' not in machine()

@pytest.mark.parametrize('on', [True, False])
def test_quiet_gives_everything_back(on):
    import datasets
    from transformers.utils import logging
    def state():
        return logging.get_verbosity(), logging.is_progress_bar_enabled(), datasets.is_progress_bar_enabled()
    begin = state()
    try:
        for module in (logging, datasets):
            (module.enable_progress_bar if on else module.disable_progress_bar)()
        before = state()
        with pytest.raises(KeyboardInterrupt), quiet():
            assert state() == (logging.ERROR, False, False)
            raise KeyboardInterrupt
        assert state() == before
    finally:
        (logging.enable_progress_bar if begin[1] else logging.disable_progress_bar)()
        (datasets.enable_progress_bars if begin[2] else datasets.disable_progress_bars)()


def test_what_is_at_hand(tmp_path, monkeypatch, capsys):
    from huggingface_hub import HfApi, constants
    asked = []
    def ask(self, name, timeout):
        asked.append(name)
        if name != 'there/model': raise ConnectionError
    monkeypatch.setattr(HfApi, 'model_info', ask)
    monkeypatch.setattr(HfApi, 'dataset_info', ask)
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path/'hub'))
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', False)
    for name in ('datasets--some--texts', 'models--half--made'):
        folder = tmp_path/'hub'/name/'snapshots'/'a1'
        folder.mkdir(parents=True)
        (folder/('config.json' if 'half' in name else 'train.parquet')).write_text('{}')
    (folder/'model.safetensors').symlink_to('../../blobs/not-yet') # a download that was stopped
    assert at_hand(str(tmp_path), 'some/texts') and not asked and not capsys.readouterr().out
    assert at_hand('there/model') and asked == ['there/model']
    assert not at_hand('half/made', 'not/there')
    said = capsys.readouterr().out
    assert said.count('\n') == 1 and 'half/made, not/there' in said
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    before = len(asked)
    assert not at_hand('there/model') and len(asked) == before
    with pytest.raises(TypeError, match='name=3'): at_hand(3)


@pytest.mark.parametrize('share, cores', [('100000 100000', 1), ('250000 100000', 3), ('max 100000', 8),
                                          ('nonsense', 8), ('9900000 100000', 8), (None, 8)])
def test_a_container_has_fewer_cores_than_the_machine(tmp_path, monkeypatch, share, cores):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: set(range(8)), raising=False)
    if share: (tmp_path/'cpu.max').write_text(share)
    assert usable_cores(tmp_path/'cpu.max') == cores
    monkeypatch.delattr(os, 'sched_getaffinity')
    monkeypatch.setattr(os, 'cpu_count', lambda: None)
    assert usable_cores(tmp_path/'cpu.max') == 1
