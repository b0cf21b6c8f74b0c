"""A list of words with valences, and a baseline made of it: nothing is learnt.

It was written for the course with IMDb in mind; VADER (Hutto and Gilbert, 2014) is the best known."""
import re

import numpy as np

from course_lm.baselines import RunResult

words = {
    4: '''masterpiece superb flawless brilliant magnificent outstanding phenomenal perfection
     breathtaking extraordinary unforgettable''',
    3: '''excellent wonderful fantastic amazing terrific perfect perfectly gem incredible stunning
     hilarious gripping riveting delightful marvelous marvellous beautifully masterful exceptional
     captivating spectacular fabulous favorite favourite loved adored treasure mesmerizing
     mesmerising glorious wonderfully brilliantly superbly heartwarming''',
    2: '''great love loves loving enjoyed enjoyable beautiful powerful impressive moving touching
     charming fascinating remarkable compelling funny clever witty refreshing memorable classic
     thrilling entertaining engaging haunting best thoughtful enjoy sublime hooked laughed recommend
     recommended believable subtle timeless poignant stylish highly tense rare strong''',
    1: '''good nice fun fine solid likeable likable pleasant decent cute fresh sweet interesting
     sharp vivid honest genuine smart worth warm rich liked likes easy lively amusing original
     talented suspenseful tight today relaxed human real''',
    -1: '''slow flat odd weird silly cheap confusing tired uneven thin loud forgettable overlong
     messy mediocre shallow flawed weak lacks lacking lacked missing generic dated unlikely
     predictable supposed excuse instead problem problems script obvious unfortunately okay minutes
     cheesy''',
    -2: '''bad boring bored dull poor poorly fails failed fail annoying annoyed lame lazy unfunny
     disappointing disappointed disappointment contrived clumsy bland tedious ridiculous pointless
     stupid ugly wooden cliche cliches clichéd clichés implausible irritating lifeless sloppy
     nonsense regret hate hated mess skip sadly bother unconvincing amateurish worse empty stale
     dreary uninspired''',
    -3: '''terrible horrible dreadful pathetic waste wasted crap trash rubbish garbage idiotic
     moronic unbearable insulting painful painfully ruined laughable incoherent embarrassing badly
     inept disaster fake cringe''',
    -4: '''awful worst atrocious abysmal unwatchable appalling horrendous excruciating abomination vomit
     worthless'''}
valences = {w:v for v,some in words.items() for w in some.split()} # word: -4 (blame) to 4 (praise)
negations = set('''not no never none nobody nothing neither nor without hardly barely cannot cant dont didnt
 doesnt isnt wasnt wont wouldnt couldnt'''.split())
louder = '''very really extremely so truly absolutely totally incredibly utterly completely highly such
 most'''.split()
quieter = 'slightly somewhat fairly rather kinda a_bit mildly partly almost'.split()
degrees = {**dict.fromkeys(louder, 1.4), **dict.fromkeys(quieter, .6)}


def lexicon_score(text): # above 0: praise
    found = re.findall(r"[^\W\d_]+(?:['’]\w+)?", text.replace('<br />', ' ').replace('a bit ', 'a_bit '))
    low, shouted, total = [w.lower() for w in found], text.isupper(), 0.
    for i,w in enumerate(low):
        value, before = valences.get(w, 0), low[max(0, i-3):i]
        if found[i].isupper() and len(w) > 1 and not shouted: value *= 1.25
        for u in before[-2:]: value *= degrees.get(u, 1)
        if any(u in negations or u.endswith(("n't", 'n’t')) for u in before): value *= -.75
        total += value
    return total + .3*min(text.count('!'), 4)*((total > 0) - (total < 0))


def lexicon_baseline(splits, score_on='test'): # a review without a listed word is called negative
    scores = np.array([lexicon_score(t) for t in splits[score_on]['text']])
    return RunResult.of(splits, score_on, name='word list', probs=1/(1+np.exp(-scores/3)))
