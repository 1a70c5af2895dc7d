"""The report's arithmetic: `cargo xtask python peers.test_report`."""

import unittest

from peers import report


def result(ours: dict, **peers: dict) -> dict:
    row = {"skipstone": ours, **peers}
    return {"versions": dict.fromkeys(row, "1.0"), "threads": ["1"], "models": {"net": {"1": row}}}


def facts(latency: float) -> dict:
    return {"median_ms": latency, "p90_ms": latency, "load_ms": 1.0, "resident_mb": 0.0, "anonymous_mb": 0.0}


class Report(unittest.TestCase):
    def test_a_wrong_answer_cannot_win(self):
        row = {"skipstone": facts(2.0), "ncnn": {"error": "wrong output: top-1"}, "mnn": facts(4.0)}
        self.assertEqual(report.best_peer(row, "median_ms"), "mnn")
        self.assertEqual(report.ratio(row, "median_ms", "mnn"), 0.5)
        self.assertIsNone(report.ratio(row, "median_ms", "ncnn"))

    def test_our_failure_has_no_ratio(self):
        row = {"skipstone": {"error": "status 1"}, "mnn": facts(4.0)}
        self.assertIsNone(report.ratio(row, "median_ms", "mnn"))

    def test_without_peers_there_is_no_comparison(self):
        alone = result(facts(2.0), ncnn={"error": "status 1"})
        self.assertIsNone(report.best_peer(alone["models"]["net"]["1"], "median_ms"))
        self.assertNotIn("net", "".join(report.summary(alone)))

    def test_figures_show_best_and_ratio(self):
        lines = report.figures(result(facts(2.0), ncnn=facts(1.0), mnn={"error": "wrong output: x"}), "1", "median_ms")
        self.assertEqual(lines[-2], "| net | 2.00 (2.00) | **1.00** (1.00) | wrong | ncnn | 2.00 |")

    def test_our_variants_are_not_peers_and_have_ratios_of_their_own(self):
        ways = result(facts(2.0), skipstone_package=facts(1.0), ncnn=facts(4.0))
        self.assertEqual(report.best_peer(ways["models"]["net"]["1"], "median_ms"), "ncnn")
        lines = report.figures(ways, "1", "median_ms")
        self.assertEqual(lines[-2], "| net | 2.00 (2.00) | **1.00** (1.00) | 4.00 (4.00) | ncnn | 0.50 | 0.25 |")
        latencies = [line for line in report.summary(ways) if line.startswith("| latency")]
        self.assertEqual([line.split(" | ")[3] for line in latencies], ["**0.50**", "**0.25**"])

    def test_zero_memory_is_a_measurement(self):
        row = {"skipstone": facts(2.0), "mnn": facts(4.0)}
        self.assertEqual(report.ratio(row, "resident_mb", "mnn"), 1.0)

    def test_geometric_mean(self):
        self.assertAlmostEqual(report.geometric_mean([0.5, 2.0, 1.0]), 1.0)


if __name__ == "__main__":
    unittest.main()
