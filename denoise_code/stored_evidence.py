"""What was judged, in the form in which evidence.json and evidence.safetensors keep it, and back again.

Of the rows of a folder (`making_evidence.py`) and of a log (`cleaning/folder.py`): both files hold the same of both.
"""

from dataclasses import asdict, dataclass, fields
from pathlib import Path

from denoise_code.common.errors import InputError
from denoise_code.data_set.evidence_files import VERSION, StoredEvidence, read_record_with_arrays
from denoise_code.data_set.interactions import DataSet
from denoise_code.evidence.options import EvidenceOptions
from denoise_code.judging import FiguresOfKinds, JudgedDataSet, JudgedInteractions, Ranking, Replacements

NAME_OF_HELD_OUT = "held out items found"  # in evidence.json, of `Ranking.held_out`


@dataclass(frozen=True)
class MadeOf:
    """Fingerprints of what evidence was made of.

    rows {file name without .csv: of its rows} and catalogue: checked by whoever reads the evidence. sources: of all that r and its
    figures hang on.
    """

    rows: dict[str, str]
    catalogue: str
    sources: str


def make_record(data: DataSet, judged: JudgedDataSet, made_of: MadeOf, options: EvidenceOptions | None) -> dict:
    """evidence.json, but for what it cost. options None: no replacements are chosen yet, so those that are stored fit no options."""
    return {
        "version": VERSION,
        "files": list(data.evaluated),
        "rows": made_of.rows,
        "catalogue": made_of.catalogue,
        "n_interactions": len(data.interactions),
        "disagreements": data.disagreements,
        **asdict(judged.interactions.figures),
        "kinds": list(judged.interactions.train),
        "noise_share": float(judged.noise_share),
        "replacements": ranking_as_json(judged.replacements.ranking),
        "sources": made_of.sources,
        "options": None if options is None else options_of(options),
    }


def ranking_as_json(ranking: Ranking | None) -> dict:
    """`replacements` of evidence.json; {} where none are chosen yet."""
    if ranking is None:
        return {}
    return {NAME_OF_HELD_OUT if name == "held_out" else name: value for name, value in asdict(ranking).items()}


def options_of(options: EvidenceOptions) -> dict:
    """What replacements and probabilities hang on, r does not."""
    return {"noise_share": options.noise_share, "replace_all": options.replace_all}


def stored_form(data: DataSet, judged: JudgedDataSet, record: dict) -> StoredEvidence:
    """Both files. record: evidence.json."""
    return StoredEvidence(
        interaction_of_cell=data.train,
        users=data.interactions.users,
        places=data.interactions.places,
        train=judged.interactions.train,
        histories=judged.interactions.histories,
        train_replacements=judged.replacements.train,
        history_replacements=judged.replacements.histories,
        record=record,
    )


def stored_record(folder: Path) -> dict | None:
    """evidence.json; None where there is no evidence, and where it is damaged or of another version: it is made anew."""
    try:
        return read_record_with_arrays(folder)
    except InputError:
        return None


def judged_before(stored: StoredEvidence) -> JudgedInteractions:
    """r as it was stored, without what was learned."""
    return JudgedInteractions(stored.train, stored.histories, figures_of(stored.record))


def replacements_before(stored: StoredEvidence) -> Replacements:
    return Replacements(stored.train_replacements, stored.history_replacements, ranking_of(stored.record))


def figures_of(record: dict) -> FiguresOfKinds:
    """record: evidence.json."""
    return FiguresOfKinds(**{field.name: record[field.name] for field in fields(FiguresOfKinds)})


def ranking_of(record: dict) -> Ranking:
    """record: evidence.json of evidence whose replacements are chosen."""
    values = record["replacements"]
    return Ranking(values["coefficients"], values["weights"], values[NAME_OF_HELD_OUT], values["least_probability"])
