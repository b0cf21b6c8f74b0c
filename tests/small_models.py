"""Small models with random weights, and batches for them: what the tests of several rooms score."""
import torch
from torch import nn

from course_lm.support.inputs import IGNORE_INDEX

TEXTS = ['The value of the name is not defined here, and the name is not bound.',
         'A café costs 3 €, naïvely.', 'Names refer to objects.',
         'The following identifiers are used as reserved words, or keywords of the language, '
         'and cannot be used as ordinary identifiers.']


def sharper(make):
    "A model that is surer of what it says than a fresh one, the same each time."
    torch.manual_seed(0)
    model = make().eval()
    for p in model.parameters():
        if p.dim() > 1: p.data.mul_(4)
    return model


def gpt2(vocab=320, n_positions=64, **kw):
    from transformers import GPT2Config, GPT2LMHeadModel
    config = GPT2Config(vocab_size=vocab, n_positions=n_positions, n_embd=16, n_layer=2, n_head=2,
                        bos_token_id=0, eos_token_id=0, **kw)
    model = sharper(lambda: GPT2LMHeadModel(config))
    model.loss_type = 'ForCausalLM'
    return model


def bert(vocab=320, n=48):
    from transformers import BertConfig, BertForMaskedLM
    config = BertConfig(vocab_size=vocab, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                        intermediate_size=32, max_position_embeddings=n, pad_token_id=0)
    return sharper(lambda: BertForMaskedLM(config))


def padded(lengths, vocab=320, seed=0, left=False):
    "A batch of rows of these lengths, filled up with zeros that no label asks for."
    g = torch.Generator().manual_seed(seed)
    L = max(lengths)
    ids, mask, labels = (torch.full((len(lengths), L), value) for value in (0, 0, IGNORE_INDEX))
    for row,n in enumerate(lengths):
        at = slice(L-n, L) if left else slice(0, n)
        ids[row, at] = torch.randint(5, vocab, (n,), generator=g)
        mask[row, at], labels[row, at] = 1, ids[row, at]
    return dict(input_ids=ids, attention_mask=mask, labels=labels)


def asks_for_others(batch):
    "The batch with labels that are not what stands there: for masked models, which must not read the answer."
    labels = batch['labels']
    return batch | dict(labels=torch.where(labels == IGNORE_INDEX, labels, (labels - 4) % 80 + 5))


class LSTM(nn.Module):
    "A recurrent network: a model that names no longest input."
    def __init__(self):
        super().__init__()
        self.emb, self.rnn, self.out = nn.Embedding(20, 8), nn.LSTM(8, 8, batch_first=True), nn.Linear(8, 20)
    def forward(self, input_ids): return self.out(self.rnn(self.emb(input_ids))[0])
