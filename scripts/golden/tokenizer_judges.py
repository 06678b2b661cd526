"""What the public packages say a text's ids are: one judge per tokenizer file. Used by tokenizer_ids.py and by
scripts/compare_tokenizers.py.

A judge reads text as data: spellings of special tokens mean nothing, nothing is added in front. Added tokens that are not special
are matched, but for those spelled as markup (harness/text/tokenizer/special_tokens.h).
"""
import json
import os
import pathlib

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"

import gguf  # noqa: E402
import sentencepiece  # noqa: E402
from sentencepiece import sentencepiece_model_pb2 as sentencepiece_proto  # noqa: E402
import tokenizers  # noqa: E402
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers  # noqa: E402

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = 1, 2, 3, 4, 5, 6


def fnv1a(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) % 2**64
    return f"{value:016x}"


def hashed(ids):
    return fnv1a(",".join(map(str, ids)).encode())


def is_plain(spelling):
    """Whether an added token that is not special is matched in data."""
    return len(spelling.encode()) < 3 or (spelling[0], spelling[-1]) not in (("<", ">"), ("[", "]"))


class JsonJudge:
    """The `tokenizers` package on a tokenizer.json. control: read text as a template's, special tokens included."""
    package = f"tokenizers {tokenizers.__version__}"

    def __init__(self, source, control=False):
        self.tree = json.loads(source)
        self.control = control
        for token in self.tree["added_tokens"] if not control else []:
            token["special"] = token["special"] or not is_plain(token["content"])
        self.tree["post_processor"] = None
        self.source = json.dumps(self.tree)
        self.judge = Tokenizer.from_str(self.source)
        self.judge.encode_special_tokens = not control  # transformers' split_special_tokens

    def fresh(self):
        """The same without memory of texts read before."""
        return JsonJudge(self.source, self.control)

    def ids(self, text):
        return self.judge.encode(text, add_special_tokens=False).ids

    def fast(self, text):
        return self.judge.encode_batch_fast([text], add_special_tokens=False)[0].ids

    def piece(self, i):
        return self.judge.id_to_token(i)

    def added(self):
        """Spellings of special and other added tokens."""
        return [token["content"] for token in self.tree["added_tokens"]]


class SentencePieceJudge:
    """The `sentencepiece` package on a tokenizer.model."""
    package = f"sentencepiece {sentencepiece.__version__}"

    def __init__(self, source):
        proto = sentencepiece_proto.ModelProto.FromString(source)
        for piece in proto.pieces:
            if piece.type == USER and not is_plain(piece.piece):
                piece.type = CONTROL
        self.source = proto.SerializeToString()
        self.judge = sentencepiece.SentencePieceProcessor(model_proto=self.source)

    def fresh(self):
        return SentencePieceJudge(self.source)

    def ids(self, text):
        return self.judge.encode(text)

    fast = ids

    def piece(self, i):
        return self.judge.id_to_piece(i)

    def added(self):
        proto = sentencepiece_proto.ModelProto.FromString(self.source)
        return [p.piece.replace("\u2581", " ") for p in proto.pieces if p.type in (CONTROL, USER)]


def byte_level(vocab, merges, pre, nfc=False, **options):
    judge = Tokenizer(models.BPE(vocab, merges, **options))
    if nfc:
        judge.normalizer = normalizers.NFC()
    judge.pre_tokenizer = pre
    judge.decoder = decoders.ByteLevel()
    return judge


def split_at(expression):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(expression), "isolated"),
                                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def digits_then_words():
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                    pre_tokenizers.ByteLevel(add_prefix_space=False)])


def llama_cpp_default():
    """What llama.cpp does for a GGUF file of pre-tokenizer "default": these expressions in turn."""
    expressions = [r"[\p{P}\$\+<=>\^~\|]+", r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
                   r"\p{N}+", "[0-9][0-9][0-9]"]
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(e), "isolated") for e in expressions] +
                                   [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def from_sentencepiece(source, form):
    """A tokenizer.model in tokenizer.json's form. `form`: prepend (Llama 2 as first converted), always or first (Metaspace)."""
    proto = sentencepiece_proto.ModelProto.FromString(source)
    vocab = {p.piece: i for i, p in enumerate(proto.pieces)}
    merges = []
    for piece in proto.pieces:
        if piece.type == NORMAL:
            halves = [(piece.piece[:i], piece.piece[i:]) for i in range(1, len(piece.piece))]
            halves = [h for h in halves if h[0] in vocab and h[1] in vocab]
            merges += sorted(halves, key=lambda h: (vocab[h[0]], vocab[h[1]]))
    merges.sort(key=lambda h: vocab[h[0] + h[1]])
    judge = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if form == "prepend":
        judge.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    else:
        judge.pre_tokenizer = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme=form, split=False)
    judge.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(),
                                       decoders.Strip(content=" ", left=1)])
    judge.add_special_tokens([AddedToken(p.piece, normalized=False, special=True)
                              for p in proto.pieces if p.type in (UNKNOWN, CONTROL)])
    return judge


def sentencepiece_of_gguf(reader):
    """The SentencePiece model that a GGUF of kind "llama" was made from."""
    proto = sentencepiece_proto.ModelProto()
    fields = [reader.fields["tokenizer.ggml." + key].contents() for key in ("tokens", "scores", "token_type")]
    for piece, score, kind in zip(*fields):
        proto.pieces.add(piece=piece, score=score, type=kind)
    proto.trainer_spec.model_type = 2
    proto.trainer_spec.byte_fallback = True
    prefix = reader.fields.get("tokenizer.ggml.add_space_prefix")
    proto.normalizer_spec.name = "identity"
    proto.normalizer_spec.add_dummy_prefix = prefix is None or bool(prefix.contents())
    proto.normalizer_spec.remove_extra_whitespaces = False
    return proto.SerializeToString()


def gguf_judge(path):
    reader = gguf.GGUFReader(path)
    if reader.fields["tokenizer.ggml.model"].contents() == "llama":
        return SentencePieceJudge(sentencepiece_of_gguf(reader))
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(m.split(" ")) for m in reader.fields["tokenizer.ggml.merges"].contents()]
    vocab = {token: i for i, token in enumerate(tokens)}
    pre = reader.fields["tokenizer.ggml.pre"].contents()
    known = {"smollm": lambda: byte_level(vocab, merges, digits_then_words()),
             "gpt-2": lambda: byte_level(vocab, merges, pre_tokenizers.ByteLevel(add_prefix_space=False)),
             "llama-bpe": lambda: byte_level(vocab, merges, split_at(LLAMA3), ignore_merges=True),
             "qwen2": lambda: byte_level(vocab, merges, split_at(QWEN2), nfc=True),
             "default": lambda: byte_level(vocab, merges, llama_cpp_default())}
    if pre not in known:
        raise SystemExit(f"{path}: no judge for the pre-tokenizer '{pre}'; known: {', '.join(known)}")
    judge = known[pre]()
    kinds = reader.fields["tokenizer.ggml.token_type"].contents()
    judge.add_tokens([AddedToken(t, normalized=False) for t, kind in zip(tokens, kinds) if kind == USER])
    return JsonJudge(judge.to_str())


def judge_of(path):
    """The judge of a model path: a GGUF file, or a folder with tokenizer.json or tokenizer.model."""
    path = pathlib.Path(path)
    if path.is_file():
        return gguf_judge(str(path))
    if (path / "tokenizer.json").exists():
        return JsonJudge((path / "tokenizer.json").read_text(encoding="utf-8"))
    if (path / "tokenizer.model").exists():
        return SentencePieceJudge((path / "tokenizer.model").read_bytes())
    raise SystemExit(f"{path}: neither a GGUF file nor a folder with tokenizer.json or tokenizer.model")
