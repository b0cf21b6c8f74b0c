import itertools, math, re

import numpy as np, pytest

from course_lm.support.html import PALETTE, Piece, pale, show_text, tint, visible

def channels(colour): return np.array([int(colour[i:i+2], 16) for i in (1, 3, 5)]) / 255
def linear(c): return np.where(c <= .04045, c/12.92, ((c+.055)/1.055)**2.4)
def contrast(a, b):
    one, two = (linear(channels(c)) @ [.2126, .7152, .0722] + .05 for c in (a, b))
    return max(one, two)/min(one, two)

# Machado, Oliveira and Fernandes (2009), severity 1: what people without green and without red cones see
_blind = dict(green=[[.367322, .860646, -.227968], [.280085, .672501, .047413], [-.011820, .042940, .968881]],
              red=[[.152286, 1.052583, -.204868], [.114503, .786281, .099216],
                   [-.003882, -.048116, 1.051998]])

_xyz = np.array([[.4124564, .3575761, .1804375], [.2126729, .7151522, .0721750],
                 [.0193339, .1191920, .9503041]])
def lab(colour, eye):
    "CIELAB: there, equal distances look equally far apart."
    t = _xyz @ np.clip(np.array(eye) @ linear(channels(colour)), 0, 1) / [.95047, 1, 1.08883]
    x, y, z = np.where(t > .008856, np.cbrt(t), 7.787*t + 16/116)
    return np.array([116*y-16, 500*(x-y), 200*(y-z)])
def nearest(colours, eye):
    return min(np.linalg.norm(lab(a, eye)-lab(b, eye)) for a,b in itertools.combinations(colours, 2))

@pytest.mark.parametrize('kind', _blind)
def test_colours_can_be_told_apart_without_red_or_green(kind):
    eye = _blind[kind]
    assert nearest(PALETTE.values(), eye) > 8 and nearest([*map(pale, PALETTE), '#ffffff'], eye) > 10
    # a pale green and a pale red
    assert nearest(['#cfeccf', '#f4d4c4'], eye) < 7 < nearest(['#cfeccf', '#f4d4c4'], np.eye(3))

def test_text_on_every_pale_colour_can_be_read():
    assert min(contrast(pale(c), '#111111') for c in PALETTE) > 7
    assert pale(0) == pale('blue') == pale(7) and pale('#fff') == '#fff'
    assert pale('rgb(1, 2,3)') == 'rgb(1, 2,3)'
    for bad in ('red;x:url(//a)', 'expression(1)', '"', '#12'):
        with pytest.raises(ValueError, match='colour='): pale(bad)

def test_tint_has_two_ends():
    assert tint(0, 5) == tint(math.nan, 5) == tint(-3, 5) == tint(3, 0) == 'rgb(255,255,255)'
    assert tint(5, 5) == tint(99, 5) == tint(-5, 5, two_ends=True) == 'rgb(255,135,50)'
    assert tint(5, 5, two_ends=True) == 'rgb(50,135,255)'

def test_everything_is_escaped():
    bad = '<script>alert("x")</script>&\'"'
    pieces = [bad, (bad, 'blue'), Piece(bad, title=bad, above=bad, below=[Piece(bad, framed=True)])]
    out = show_text({bad: pieces}, scale=bad, legend={bad: 0}, title=bad, note=bad).data
    assert '<script' not in out and out.count('&lt;script&gt;') == 12
    assert re.fullmatch(r'(?:<(?:div|span)(?: [a-z]+="[^"<>]*")*>|</(?:div|span)>|<br>|[^<>"])*', out)

def test_pieces_and_their_looks():
    out = show_text(['a', Piece('b', value=6.), Piece('c', value=math.nan), Piece('d', marked=True),
                     Piece('e', 'sky', width=.25)], scale='bits', most=12).data
    assert out.index('a') < out.index('>b<') < out.index('>c<') and 'title="not scored"' in out
    assert tint(6, 12) in out and 'underline' in out and 'width:25.0000%' in out and pale('sky') in out
    assert 'bits' in out
    assert 'white-space:pre-wrap' in out and 'bits' not in show_text(['a']).data
    stacked = show_text([Piece('b', above='a', below=['c', Piece('d', 1)])]).data
    assert re.search(r'a<br>b<br>c<br><span[^>]*>d', stacked)

def test_scales():
    def ticks(most, two_ends):
        return re.findall(r'>\s*([+-]?[\d.]+) <', show_text(['a'], 'x', most, two_ends=two_ends).data)
    assert ticks(4, False) == ['0', '1', '2', '4'] and ticks(4, True) == ['-4', '-2', '0', '+2', '+4']
    assert ticks(3.94932, True) == ['-3.95', '-1.97', '0', '+1.97', '+3.95'] # three digits, and no 1e+04
    assert ticks(12345.6, False) == ['0', '3090', '6170', '12300']

def test_visible():
    assert visible(' a\n') == '·a⏎\n' and visible('') == '∅'
