"""Tables of docs/study/README.md from the summaries of the sweeps.

    python tools/study/tables.py RESULTS     # the folder that tools/study/run has filled
"""
import csv
import glob
import os
import sys

WAYS = ["uniform", "centered", "linear", "auto", "threshold", "steps"]


def number(row, key):
    return float(row[key]) if row.get(key) else None


def main():
    for path in sorted(glob.glob(os.path.join(sys.argv[1], "sweep-*", "summary.csv"))):
        with open(path) as file:
            rows = list(csv.DictReader(file))
        branch = next(row["branch"] for row in rows if row["branch"])
        same_work = os.path.join(sys.argv[1], f"work-{rows[0]['sampler']}", "summary.csv")
        if branch == "0" and os.path.exists(same_work):
            with open(same_work) as file:
                rows = [row for row in rows if row["way"] != "steps"]
                rows += [row for row in csv.DictReader(file) if row["way"] == "steps"]
        uncached = rows[0]
        ways = [way for way in WAYS if any(row["way"] == way for row in rows)]
        shown = "fewer steps" if "steps" in ways else ""
        print(f"\n{uncached['sampler']}, branch {branch}; uncached {float(uncached['calls']):.0f} calls, "
              f"{100 * float(uncached['right']):.0f} % right\n")
        titles = ["full calls", "less work"] + [shown if way == "steps" else way for way in ways]
        titles += ["auto − uniform (95 %)"]
        print("| " + " | ".join(titles) + " |")
        print("|" + "---|" * len(titles))
        for interval in sorted({int(row["interval"]) for row in rows if row["interval"]}):
            found = {row["way"]: row for row in rows if row["interval"] == str(interval)}
            uniform = found["uniform"]
            cells = [f"{float(uniform['full_calls']):.0f} (1:{interval})", f"{float(uniform['less_work']):.2f}"]
            best = max(number(found[way], "psnr") for way in ways if way in found and way != "steps")
            for way in ways:
                row = found.get(way)
                if row is None:
                    cells.append("–")
                    continue
                psnr = number(row, "psnr")
                text = f"{psnr:.1f}"
                if way != "steps" and psnr > best - 0.05:
                    text = f"**{text}**"
                right = number(row, "right")
                text += f" ({100 * right:.0f} %)"
                if way == "steps":
                    text += f", {float(row['calls']):.0f}"
                cells.append(text)
            auto = found.get("auto")
            cells.append("–" if auto is None else
                         f"{number(auto, 'psnr_vs_uniform'):+.1f} ({number(auto, 'psnr_vs_uniform_lower'):+.1f} to "
                         f"{number(auto, 'psnr_vs_uniform_upper'):+.1f})")
            print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
