"Where the answers of fresh_*.py are kept: written from the contracts alone, without the banks beside them."
RIGHT, WRONG = [], []


def right(name):
    "This answer to an exercise is right."
    def keep(fn):
        RIGHT.append((name, fn))
        return fn
    return keep


def wrong(name, mistake=""):
    "This one makes a mistake of the bank, or, without an id, one that has to be rejected."
    def keep(fn):
        WRONG.append((name, mistake, fn))
        return fn
    return keep
