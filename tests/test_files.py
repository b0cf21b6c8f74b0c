import json, os, threading
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

import numpy as np, pytest

from course_lm.support import files
from course_lm.support.files import (
    _marker,
    check_folder,
    fingerprint,
    inside,
    is_whole,
    read_json,
    text_key,
    whole_folder,
)


def write(folder, **texts):
    with whole_folder(folder) as new:
        for name, text in texts.items():
            (new / f'{name}.txt').write_text(text)


def held(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob('*') if p.is_file()}


def without_exchange(really=True):
    "A system that cannot exchange the names of two folders."
    return patch.object(files, '_exchange', return_value=False) if really else nullcontext()


# The writer


def test_a_folder_is_made_and_replaced_whole(tmp_path):
    place = tmp_path / 'deep' / 'place'
    write(place, a='1', b='2')
    write(place, b='3')
    assert (place / 'b.txt').read_text() == '3' and not (place / 'a.txt').exists()
    assert json.loads((place / _marker).read_text())['files'] == {'b.txt': 1}
    assert is_whole(place) and [p.name for p in place.parent.iterdir()] == ['place']
    umask = os.umask(0o077)
    os.umask(umask)
    assert place.stat().st_mode & 0o777 == 0o777 & ~umask


def test_an_empty_folder_and_a_folder_below_are_fine(tmp_path):
    with whole_folder(tmp_path) as new:
        (new / 'below').mkdir()
        (new / 'below' / 'x.txt').write_text('x')
    assert (tmp_path / 'below' / 'x.txt').read_text() == 'x' and is_whole(tmp_path)
    write(tmp_path, a='1')
    assert set(held(tmp_path)) == {_marker, 'a.txt'}


@pytest.mark.parametrize('exchange', [True, False])
@pytest.mark.parametrize('error', [KeyboardInterrupt, OSError, ValueError])
def test_a_writer_that_fails_changes_nothing(tmp_path, error, exchange):
    place = tmp_path / 'place'
    write(place, a='1')
    old = held(place)
    broken = [
        patch.object(files, '_exchange', side_effect=error),
        patch.object(files.os, 'fsync', side_effect=OSError('full')),
        patch.object(files.json, 'dumps', side_effect=error),
    ]
    if not exchange:
        broken.append(patch.object(files, '_two_renames', side_effect=error))
    for target in broken:
        with without_exchange(not exchange):
            with target, pytest.raises((error, OSError)):
                write(place, a='2', b='2')
    with pytest.raises(error), whole_folder(place) as new:
        (new / 'a.txt').write_text('half')
        raise error
    assert held(place) == old and [p.name for p in tmp_path.iterdir()] == ['place']


def test_a_broken_rename_puts_the_old_folder_back(tmp_path):
    place = tmp_path / 'place'
    write(place, a='1')
    rename, calls = Path.rename, []

    def third_fails(self, to):  # onto the old one (refused by the system), the old one aside, the new one
        calls.append(to)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return rename(self, to)

    with without_exchange(), patch.object(Path, 'rename', third_fails), pytest.raises(KeyboardInterrupt):
        write(place, a='2')
    assert (place / 'a.txt').read_text() == '1' and [p.name for p in tmp_path.iterdir()] == ['place']


@pytest.mark.parametrize(
    'strange', ['README.md', 'notes.json', 'train.txt', 'model.bin', '.hidden', 'below/x.txt']
)
@pytest.mark.parametrize('ours', [True, False])
def test_what_we_did_not_write_is_never_touched(tmp_path, strange, ours):
    place = tmp_path / 'place'
    if ours:
        write(place, a='1')
    (place / strange).parent.mkdir(parents=True, exist_ok=True)
    (place / strange).write_text('mine')
    old = held(place)
    with pytest.raises(
        ValueError, match=rf"path='.*place' holds {strange.split('/')[0]}.*did not write.*new folder"
    ):
        write(place, a='2')
    assert held(place) == old and [p.name for p in tmp_path.iterdir()] == ['place']


def test_a_corpus_is_no_model(tmp_path):
    (tmp_path / 'train.txt').write_text('all my texts')
    (tmp_path / 'notes.json').write_text('{}')
    with pytest.raises(ValueError, match='holds notes.json'):
        write(tmp_path, a='1')
    assert set(held(tmp_path)) == {'train.txt', 'notes.json'}


def test_a_model_saved_by_transformers_may_be_replaced_and_what_lies_beside_it_may_not(tmp_path):
    for name in (
        'config.json',
        'tokenizer.json',
        'model-00001-of-00002.safetensors',
        'model.safetensors.index.json',
    ):
        (tmp_path / name).write_text('{}')
    assert check_folder(tmp_path) == tmp_path
    (tmp_path / 'train.txt').write_text('mine')
    with pytest.raises(ValueError, match='holds train.txt'):
        check_folder(tmp_path)
    (tmp_path / 'train.txt').unlink()
    (tmp_path / 'config.json').unlink()
    with pytest.raises(ValueError, match='did not write'):
        check_folder(tmp_path)


def test_links_are_not_ours_and_a_link_to_a_folder_is_followed(tmp_path):
    place, elsewhere = tmp_path / 'place', tmp_path / 'elsewhere'
    write(elsewhere, a='1')
    place.symlink_to(elsewhere)
    write(place, a='2')
    assert place.is_symlink() and (elsewhere / 'a.txt').read_text() == '2'
    (elsewhere / 'a.txt').unlink()
    (elsewhere / 'a.txt').symlink_to('/etc/passwd')
    with pytest.raises(ValueError, match='holds a.txt'):
        write(place, a='3')


def test_a_file_is_refused(tmp_path):
    (tmp_path / 'f').write_text('mine')
    with pytest.raises(ValueError, match="folder='.*f' is a file"):
        with whole_folder(tmp_path / 'f', 'folder'):
            pass
    assert (tmp_path / 'f').read_text() == 'mine'


@pytest.mark.parametrize('exchange', [True, False])
def test_a_file_that_comes_at_the_last_moment_stays(tmp_path, exchange):
    place = tmp_path / 'place'
    write(place, a='1')
    real = files._exchange

    def late(a, b):
        (place / 'mine.txt').write_text('mine')
        return real(a, b) if exchange else False

    with patch.object(files, '_exchange', side_effect=late), pytest.raises(ValueError, match='mine.txt'):
        write(place, a='2')
    assert (place / 'mine.txt').read_text() == 'mine' and (place / 'a.txt').read_text() == '1'
    assert [p.name for p in tmp_path.iterdir()] == ['place']


@pytest.mark.parametrize('exchange', [True, False])
def test_many_writers_end_with_one_whole_folder(tmp_path, exchange):
    place, errors, missed, done = tmp_path / 'place', [], [], threading.Event()

    def writer(k):
        try:
            for i in range(12):
                write(place, a=f'{k} {i}', b=f'{k} {i}')
        except Exception as e:
            errors.append(e)

    def reader():
        while not done.is_set():
            if not place.exists():
                missed.append(1)

    write(place, a='', b='')
    with without_exchange(not exchange):
        threads = [threading.Thread(target=writer, args=(k,)) for k in range(4)]
        looking = threading.Thread(target=reader)
        for t in (looking, *threads):
            t.start()
        for t in threads:
            t.join()
        done.set()
        looking.join()
    assert not errors and is_whole(place) and [p.name for p in tmp_path.iterdir()] == ['place']
    assert (place / 'a.txt').read_text() == (place / 'b.txt').read_text()
    if exchange and files._exchange(place, place):
        assert not missed


def test_what_a_writer_moves_aside_is_his_alone(tmp_path):
    "Without an exchange of names: another one clears, and a third one is at work, between the two renames."
    place, other = tmp_path / 'place', tmp_path / 'other'
    write(place, a='old')
    write(other, a='new')
    check = files.check_folder

    def clear_first(path, *name):
        if path.name.endswith('-old'):
            files.clear(tmp_path)
            assert path.is_dir() and not place.exists()
        return check(path, *name)

    with files._locked(place) as mine:
        assert mine and files._two_renames(other, place) is False  # somebody is at work on it
    assert held(place)['a.txt'] == b'old'
    with patch.object(files, 'check_folder', clear_first):
        assert files._two_renames(other, place)
    assert held(place)['a.txt'] == b'new' and [p.name for p in tmp_path.iterdir()] == ['place']


def test_a_lock_is_of_the_folder_that_has_the_name(tmp_path):
    "Opened, and then replaced by another one before it was locked."
    import fcntl
    place, lock = tmp_path / 'place', fcntl.flock
    write(place, a='old')

    def replaced(fd, how):
        write_anew()
        return lock(fd, how)

    def write_anew():
        place.rename(tmp_path / 'moved')
        place.mkdir()

    with patch.object(fcntl, 'flock', replaced), files._locked(place) as mine:
        assert mine is False


def test_a_cut_file_is_seen(tmp_path):
    write(tmp_path / 'place', a='12345')
    assert is_whole(tmp_path / 'place')
    (tmp_path / 'place' / 'a.txt').write_text('12')
    assert not is_whole(tmp_path / 'place') and not is_whole(tmp_path) and not is_whole(tmp_path / 'nothing')
    (tmp_path / 'place' / _marker).write_text('[1]')
    assert not is_whole(tmp_path / 'place')


# Folders of strangers


def test_read_json_is_bounded(tmp_path):
    p = tmp_path / 'x.json'
    p.write_text('{"a": [1]}')
    assert read_json(p) == {'a': [1]}
    with pytest.raises(ValueError, match='longer than 5 bytes'):
        read_json(p, 5)
    for bad in (b'{', b'\xff\xfe\x00', b'[' * 100_000):
        p.write_bytes(bad)
        with pytest.raises(ValueError, match='x.json is no JSON file'):
            read_json(p)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / 'no.json')


@pytest.mark.parametrize('name', ['../x', '/etc/passwd', 'link', 'below/../../x'])
def test_names_stay_inside(tmp_path, name):
    folder = tmp_path / 'folder'
    (folder / 'below').mkdir(parents=True)
    (folder / 'link').symlink_to('/etc/passwd')
    assert inside(folder, 'below/x') == (folder / 'below' / 'x').resolve()
    with pytest.raises(ValueError, match='leaves the folder'):
        inside(folder, name)


# Names for values


def test_fingerprint_names_values():
    assert fingerprint(1, 'a') == fingerprint(1, 'a') != fingerprint('a', 1)
    assert fingerprint({'b': 1, 'a': 2}) == fingerprint({'a': 2, 'b': 1}) and len(fingerprint()) == 16
    assert fingerprint(np.int64(3), np.arange(2)) == fingerprint(3, [0, 1])
    assert fingerprint({'b', 'a'}) == fingerprint({'a', 'b'})
    assert fingerprint('\ud800') and fingerprint(b'a') != fingerprint(b'b')
    assert fingerprint(Path('a')) == fingerprint('a')
    assert fingerprint(1, 'a') == '4a72386a027702c1'
    with pytest.raises(TypeError, match='object has no value'):
        fingerprint(object())


def test_text_key_ignores_white_space_only():
    assert text_key(' a\tb\n') == text_key('a b') != text_key('ab') and text_key('a') != text_key('A')


def test_a_folder_that_comes_while_we_look_is_looked_at_again(tmp_path):
    with (
        patch.object(files, '_now', return_value=None),
        patch.object(files, '_stranger', side_effect=['x', None]),
    ):
        assert check_folder(tmp_path / 'place') == tmp_path / 'place'
    with patch.object(files, '_stranger', side_effect=[FileNotFoundError, None]):
        assert check_folder(tmp_path) == tmp_path
