"""The benchmark's model, loaded by likelier and saved as the Hugging Face folder that both sides read.

python -m benchmarks.model_folder --model smollm2 --folder WORK/model --out SAID.json
"""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.common import parser


def main() -> None:
    from likelier.models.identity import weights_digest
    from likelier.models.loading import load_model
    from likelier.models.saving import save_model

    arguments = parser(__doc__)
    arguments.add_argument("--folder", required=True, type=Path)
    options = arguments.parse_args()
    loaded = load_model(options.model)
    # TRL loads its reference from the name in the configuration, so that must be this folder.
    loaded.model.config._name_or_path = str(options.folder)
    save_model(loaded.model, loaded.tokenizer, options.folder, card="The benchmark's model.\n")
    options.out.write_text(json.dumps({"weights": weights_digest(loaded.model).hex()}))


if __name__ == "__main__":
    main()
