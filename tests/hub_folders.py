"""Folders as the hub has them, for tests that must not ask the hub."""

import json, re

import torch


def distilbert_folder(folder, texts):
    "As the hub has it for distilbert-base-uncased: config, weights, a WordPiece tokenizer in three files."
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import DistilBertConfig, DistilBertForMaskedLM

    words = sorted({w for t in texts for w in re.findall(r"\w+|[^\w\s]", t.lower())})
    letters = sorted({c for w in words for c in w})
    vocab = [
        '[PAD]',
        '[UNK]',
        '[CLS]',
        '[SEP]',
        '[MASK]',
        *letters,
        *('##' + c for c in letters),
        *(w for w in words if len(w) > 1),
    ]
    t = Tokenizer(models.WordPiece({w: i for i, w in enumerate(vocab)}, unk_token='[UNK]'))
    t.normalizer, t.pre_tokenizer, t.decoder = (
        normalizers.BertNormalizer(lowercase=True),
        pre_tokenizers.BertPreTokenizer(),
        decoders.WordPiece(),
    )
    t.post_processor = processors.TemplateProcessing(
        single='[CLS] $A [SEP]',
        pair='[CLS] $A [SEP] $B:1 [SEP]:1',
        special_tokens=[('[CLS]', 2), ('[SEP]', 3)],
    )
    torch.manual_seed(0)
    lm = DistilBertForMaskedLM(
        DistilBertConfig(
            vocab_size=len(vocab),
            dim=16,
            hidden_dim=32,
            n_layers=1,
            n_heads=2,
            max_position_embeddings=64,
            pad_token_id=0,
        )
    )
    lm.save_pretrained(folder)
    t.save(str(folder / 'tokenizer.json'))
    (folder / 'vocab.txt').write_text('\n'.join(vocab) + '\n')
    (folder / 'tokenizer_config.json').write_text(
        json.dumps({'do_lower_case': True, 'model_max_length': 64, 'tokenizer_class': 'DistilBertTokenizer'})
    )
    return folder, lm
