"""How alike two words are, as people judge it (WordSim-353, SimLex-999; in gensim), with vectors of the words."""

import io
import json

import numpy as np
import pandas as pd
from safetensors.numpy import load
from tokenizers import Tokenizer

from mlagent_jax.tasks.preparation import LabelledRows, RawFiles

WORDLLAMA = ("wordllama", "0.4.0.post1", "42c2c88907ace0b0681ac6f9092d6a300a6409a5d2d61071a3fb5e7159370c97")


def prepare(files: RawFiles) -> LabelledRows:
    tables = [
        pd.read_csv(
            io.BytesIO(
                files.from_wheel(
                    "gensim",
                    "4.4.0",
                    "91a7fa5e814e7b1bad4b2dffa8d62c1e55410d5cbdf930714c1997ffb4404db8",
                    f"gensim/test/test_data/{name}",
                    "cp311-cp311-manylinux_2_28_x86_64",
                )
            ),
            sep="\t",
            comment="#",
            names=["first", "second", "similarity"],
        ).assign(collection=collection)
        for name, collection in (("wordsim353.tsv", "wordsim"), ("simlex999.txt", "simlex"))
    ]
    rows = pd.concat(tables, ignore_index=True)
    rows = rows[rows["first"].str.lower() != rows["second"].str.lower()].reset_index(drop=True)
    weights, tokenizer = (
        files.from_wheel(*WORDLLAMA, f"wordllama/{member}", "cp311-cp311-manylinux2014_x86_64")
        for member in ("weights/l2_supercat_256.safetensors", "tokenizers/l2_supercat_tokenizer_config.json")
    )
    table = load(weights)["embedding.weight"].astype(np.float32)
    split = Tokenizer.from_str(json.dumps(json.loads(tokenizer)))

    def vectors(words: pd.Series) -> np.ndarray:
        tokens = (split.encode(word, add_special_tokens=False).ids for word in words)
        return np.stack([table[ids].mean(axis=0) for ids in tokens]).astype(np.float16)

    return LabelledRows(
        rows=rows[["first", "second", "collection", "similarity"]],
        arrays={"first_vectors": vectors(rows["first"]), "second_vectors": vectors(rows["second"])},
        train_rows=600,
        source="WordSim-353 (L. Finkelstein et al.) and SimLex-999 (F. Hill et al.), as in gensim; vectors of"
        " wordllama l2_supercat_256",
        licence="LGPL-2.1 (gensim), MIT (wordllama); of the judgements themselves CC BY 4.0 (WordSim-353) and"
        " none stated (SimLex-999)",
    )
