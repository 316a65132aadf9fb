"""What the record of an adapter (its run.json) says of its training, as far as stage 2 reads it."""

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class AdapterRecord:
    """Each default stands for a record that does not say it: of an older adapter, of another program, or of none."""

    base_model: str  # hub name or folder; without an adapter the model that is read with
    data_fingerprint: str | None = None  # of the rows it learned from; None: any row may be among them
    catalogue_fingerprint: str | None = None  # of the titles it learned from; None: they may be others
    dataset_name: str | None = None  # the folder of both, for messages
    held_out: str = "rows"  # "users": held-out and trained windows share no user; "rows", as older adapters did: they may
    sample: int = 0  # windows that it was trained on; 0: not known
    eval_sample: int = 0  # windows held out to choose a checkpoint
    seed: int = 0  # of the draw of both
    loss_on: str | None = None  # what carried loss; "answer": the titles of the question did not

    @classmethod
    def of_run(cls, run: dict, base_model: str) -> "AdapterRecord":
        """From the content of run.json, {} where there is none; the options of the training are its `arguments`."""
        values = run | run.get("arguments", {}) | {"base_model": base_model}
        return cls(**{field.name: values[field.name] for field in fields(cls) if field.name in values})
