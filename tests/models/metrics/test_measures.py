"""Names, senses and means of the measures."""

from models.metrics.measures import MEASURES, Scores, mean_of, mean_scores, shown


def test_a_mean_leaves_out_what_was_not_computed() -> None:
    found = mean_scores([Scores(psnr=20.0, lmd=1.0), Scores(psnr=30.0), Scores(psnr=25.0, lmd=3.0)])
    assert (found.psnr, found.lmd, found.fid) == (25.0, 2.0, None)
    assert shown("psnr", 25.0) == "25.00" and shown("fid", None) == "-"


def test_every_score_has_a_name_and_a_sense() -> None:
    assert {measure.key for measure in MEASURES} == set(Scores.__dataclass_fields__)


def test_frames_without_a_measure_do_not_count_in_its_mean() -> None:
    assert mean_of([{"psnr": 20.0, "lmd": 1.0}, {"psnr": 30.0}]) == {"psnr": 25.0, "lmd": 1.0}
    assert mean_of([]) == {}
