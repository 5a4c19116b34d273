"""What decides a phantom's bytes."""

from dataclasses import dataclass, fields
from typing import Any

from ..errors import InputError

MOST_PATIENTS = 99999  # the patient numbers of the paths have five digits
LEAST = {"patients": 1, "seed": 0, "valid_patients": 0, "report_noise": 0, "most_studies": 1, "test_patients": 0}


@dataclass(frozen=True)
class Settings:
    """What decides a phantom's bytes: the same settings, the same bytes.

    Attributes:
        patients: training patients (numbers 1 to `patients`); each has about 2.4 films (CheXpert 3.5).
        seed: of every draw.
        valid_patients: validation patients, one study each, numbered on.
        report_noise: factor on what the training reports get wrong, leave open or omit; 1 as in CheXpert, 0 clean.
        laterals: with lateral views beside the frontal ones (as many as in CheXpert).
        most_studies: no training patient has more studies than this (CheXpert: 91).
        test_patients: test patients, one study each, numbered on; with none there is no test.csv.

    Raises:
        InputError: a setting is out of range.

    Source: statistics of CheXpert (Irvin et al. 2019, and its train.csv, counted).
    """

    patients: int = 1200
    seed: int = 0
    valid_patients: int = 300
    report_noise: float = 1.0
    laterals: bool = True
    most_studies: int = 91
    test_patients: int = 0

    def __post_init__(self) -> None:
        for name, low in LEAST.items():
            if getattr(self, name) < low:
                raise InputError(f"phantom: {name} is {getattr(self, name)}; expected at least {low}")
        if sum(self.split_patients.values()) > MOST_PATIENTS:
            raise InputError(f"phantom: more than {MOST_PATIENTS} patients; the patient numbers of the paths have "
                             "five digits")

    @classmethod
    def of(cls, given: dict[str, Any]) -> "Settings":
        """The settings given by name, the others at their defaults.

        Raises:
            InputError: there is no such setting, or one is out of range.
        """
        names = [field.name for field in fields(cls)]
        unknown = sorted(set(given) - set(names))
        if unknown:
            raise InputError(f"phantom setting {unknown[0]!r}; expected one of: {', '.join(names)}")
        return cls(**given)

    @property
    def split_patients(self) -> dict[str, int]:
        """How many patients each split has, in the order of their numbers."""
        return {"train": self.patients, "valid": self.valid_patients, "test": self.test_patients}
