"""Published optima of generalized models: criterion, estimates, errors, other points, means."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from generalized_models import frame as declared

import lmmsparse as lmm


def frame(name: str) -> pd.DataFrame:
    """A table with factors as text, whose levels are in alphabetical order."""
    data = declared(name).copy()
    return data.astype(dict.fromkeys(data.select_dtypes("category").columns, str))


class Case(NamedTuple):
    data: str
    formula: str
    family: Any
    minus2loglik: float
    beta: list[float]
    se: list[float]
    sd: list[float]
    elsewhere: list[float]
    fitted: list[float]
    options: dict[str, Any] = {}  # noqa: RUF012


CBPP = "cbind(incidence, failures) ~ period + (1 | herd)"
CBPP_NUMBERS = (
    184.052564,
    [-1.39853, -0.992333, -1.12867, -1.58031],
    [0.232472, 0.306642, 0.326638, 0.427437],
    [0.642261],
    [188.9084, 188.7108, 185.8979],
    [0.308208, 0.141748, 0.125958],
)
CASES = {
    "bacteria": Case(
        "bacteria",
        "y ~ trt + late + (1 | ID)",
        "binomial",
        192.261374,
        [2.18137, 0.584016, 1.36673, -1.59853],
        [0.619784, 0.689108, 0.677138, 0.476012],
        [1.24241],
        [196.7539, 194.5122, 194.7726],
        [0.980016, 0.980016, 0.908386],
    ),
    "cake-gamma": Case(
        "cake",
        "angle ~ recipe + t10 + (1 | replicate / recipe)",
        "gamma",
        1631.243861,
        [3.48674, -0.0549213, -0.0587646, 0.0502117],
        [0.0482843, 0.0308924, 0.0308935, 0.00495009],
        [0.0629728, 0.166769],
        [1656.4274, 1872.0393, 1670.8459],
        [40.481, 42.5655, 44.7573],
    ),
    "cbpp-agq9": Case(
        "cbpp",
        CBPP,
        "binomial",
        183.966744,
        [-1.39923, -0.991404, -1.12782, -1.57947],
        [0.233511, 0.306768, 0.326768, 0.427595],
        [0.647516],
        [188.8213, 188.5832, 185.7972],
        [0.308699, 0.142142, 0.126306],
        {"n_agq": 9},
    ),
    "cbpp-cloglog": Case(
        "cbpp",
        CBPP,
        lmm.families.Binomial("cloglog"),
        183.516004,
        [-1.5321, -0.91299, -1.0311, -1.47942],
        [0.210655, 0.284028, 0.305517, 0.408337],
        [0.585898],
        [188.7102, 189.1815, 185.6106],
        [0.303285, 0.135003, 0.120914],
    ),
    "cbpp-prop": Case(
        "cbpp", "prop ~ period + (1 | herd)", "binomial", *CBPP_NUMBERS, {"weights": "size"}
    ),
    "cbpp-ratio": Case("cbpp", "incidence / size ~ period + (1 | herd)", "binomial", *CBPP_NUMBERS),
    "cbpp": Case("cbpp", CBPP, "binomial", *CBPP_NUMBERS),
    "contraception": Case(
        "contraception",
        "use ~ age + I(age**2) + urban + livch + (1 | district)",
        "binomial",
        2372.728582,
        [-1.03508, 0.00353331, -0.00456235, 0.69727, 0.815054, 0.916496, 0.915085],
        [0.175915, 0.00928591, 0.000730134, 0.1209, 0.163332, 0.186488, 0.187469],
        [0.475243],
        [2386.0579, 2380.0291, 2377.5138],
        [0.159912, 0.222969, 0.456201],
    ),
    "epil": Case(
        "epil",
        "y ~ Base * trt + Age + Visit + (1 | subject)",
        "poisson",
        1331.249881,
        [-1.36549, 0.883479, -0.93339, 0.480924, -0.295981, 0.338911],
        [1.17915, 0.130862, 0.399828, 0.346337, 0.101477, 0.202787],
        [0.501136],
        [1372.7781, 1358.5397, 1339.6215],
        [3.75686, 3.54092, 3.3374],
    ),
    "grouseticks": Case(
        "grouseticks",
        "TICKS ~ YEAR + cHEIGHT + (1 | BROOD) + (1 | INDEX) + (1 | LOCATION)",
        "poisson",
        1780.542660,
        [0.372782, 1.18041, -0.978696, -0.0237606],
        [0.196374, 0.238127, 0.262789, 0.0034385],
        [0.541509, 0.750034, 0.52872],
        [1915.5366, 1787.1771, 1798.5225],
        [0.502935, 0.502935, 0.717561],
    ),
    "owls": Case(
        "owls",
        "SiblingNegotiation ~ FoodTreatment * SexParent + ArrivalTime + (1 | Nest)",
        "poisson",
        4996.198734,
        [3.82218, -0.667412, -0.0123508, -0.1294, 0.133188],
        [0.244717, 0.0561098, 0.0453376, 0.00927572, 0.0704347],
        [0.456931],
        [5017.0746, 5015.6064, 5003.1788],
        [7.24505, 4.17566, 6.98724],
        {"offset": "logBroodSize"},
    ),
    "toenail": Case(
        "toenail",
        "y ~ treatment * time + (1 | patientID)",
        "binomial",
        1255.617868,
        [-2.52335, -0.307018, -0.400092, -0.13726],
        [0.788288, 0.68996, 0.0470589, 0.0695865],
        [4.57092],
        [1420.5607, 1269.7239, 1282.3474],
        [0.880121, 0.822444, 0.523398],
    ),
    "verbagg": Case(
        "verbagg",
        "r2 ~ Anger + Gender + btype + situ + (1 | id) + (1 | item)",
        "binomial",
        8151.399720,
        [0.199059, 0.0574296, 0.32071, -1.0588, -2.1054, -1.05546],
        [0.406533, 0.0168389, 0.191928, 0.257283, 0.259467, 0.210782],
        [1.33971, 0.495304],
        [8368.0618, 8155.6076, 8179.2112],
        [0.681718, 0.210625, 0.710798],
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_published_optimum(case: Case) -> None:
    m = lmm.glmer(case.formula, frame(case.data), case.family, **case.options)
    assert m.minus2loglik == pytest.approx(case.minus2loglik, abs=1e-6)
    assert m.convergence.converged
    assert m.optimum.evaluations <= 20
    np.testing.assert_allclose(m.fixef, case.beta, rtol=1e-5)
    np.testing.assert_allclose(m.se, case.se, rtol=3e-5)
    sd = np.concatenate([term.sd for term in m.varcorr.terms])
    np.testing.assert_allclose(sd, case.sd, rtol=1e-5)
    np.testing.assert_allclose(m.fitted[:3], case.fitted, rtol=1e-5)
    points = [(1.0, 0.5), (0.8, 1.0), (0.9, 1.3)]
    found = [m.criterion_at(a * m.fixef, b * m.theta) for a, b in points]
    np.testing.assert_allclose(found, case.elsewhere, atol=1e-4)


def test_dispersion_of_gamma_is_a_parameter() -> None:
    case = CASES["cake-gamma"]
    m = lmm.glmer(case.formula, frame("cake"), lmm.families.Gamma())
    assert m.dispersion == pytest.approx(0.0191232, rel=1e-5)
    assert m.npar == 4 + 2 + 1


def test_expected_information_is_what_lme4_reports() -> None:
    m = lmm.glmer(CBPP, frame("cbpp"), lmm.families.Binomial("probit"), information="expected")
    other = lmm.glmer(CBPP, frame("cbpp"), lmm.families.Binomial("probit"))
    assert m.minus2loglik == pytest.approx(185.24245, abs=1e-5)
    assert other.minus2loglik != pytest.approx(m.minus2loglik, abs=1e-3)


def test_quadrature_and_joint_mode() -> None:
    toenail = frame("toenail")
    m = lmm.glmer("y ~ treatment * time + (1 | patientID)", toenail, "binomial", n_agq=61)
    assert m.minus2loglik == pytest.approx(1250.79503, abs=1e-5)
    m = lmm.glmer(CBPP, frame("cbpp"), "binomial", n_agq=0)
    assert m.minus2loglik == pytest.approx(184.10859094, abs=1e-7)
