"""What became of each statement of the papers: one verdict a configuration, a matrix of all, and the sentence of the first page."""

import html
from collections import Counter
from types import SimpleNamespace

import pandas as pd
from cells import cell, digits_of, over_seeds, rows_link, seed_interval
from names import is_control, name, place
from tables import PAPERS, of_the_first

SAME = ["paper", "key", "profile", "metric", "setting", "protocol"]  # what two rows share that may be compared
TRAINED = ["paper", "profile", "metric", "setting", "protocol", "dataset", "split", "backbone", "recipe", "weights", "weights_than"]
FIRST = r" ?first \d+$"  # what the setting of rows of the first images alone ends in
FEW = 30  # images: the intervals of fewer are too narrow to be judged by alone
KINDS = ("photographs", "drawn")
BADGES = {  # verdict: symbol and class of its badge
    "holds": ("✓", "holds"), "does not hold": ("✗", "fails"), "not decided": ("?", "open"),
    "not comparable": ("≠", "incomparable"), "not run": ("–", "notrun"),
}  # fmt: skip
CONTROL = "a control does as well"
UNTRAINED = ("random_l_cam",)  # controls by their part in a run, beside those that `is_control` knows by their name
NEAR = 0.1  # two methods give one map where they differ by less in every metric of the maps
FAILED = 0.5  # of the median accuracy over the seeds: a training that ends below has failed


def judged(entries, rows, differences):
    """Every checked statement on every configuration that has both methods: a list of verdicts, in the order of the statements.

    A verdict has the `entry`, where it was judged (`dataset`, `backbone`, `setting`, `profile`, `kind`), the word (`verdict`), the paired
    difference of every seed (`seeds`, rows), its `mean`, `low` and `high`, `digits`, and the `flags` that change how it reads.
    """
    return [found for entry in entries if "check" in entry for found in _judged(entry, rows, differences)]


def _judged(entry, rows, differences):
    check = entry["check"]
    wanted = rows[rows["metric"].isin([check["metric"], check["metric"] + "_box"])]
    wanted = wanted[~wanted["setting"].str.startswith("mean ")]  # maps brought to one mean answer another question
    wanted = wanted.assign(at=wanted["setting"], setting=wanted["setting"].str.replace(FIRST, "", regex=True))
    levels = wanted
    if "setting" in check:
        wanted = wanted[wanted["setting"] == check["setting"]]
    of_method = differences[differences["method"] == check["method"]]
    paired = of_method[of_method["than"] == check["than"]]
    found = [_compare(entry, own, rows, of_method) for own in _configurations(wanted, check, paired)]
    if "setting" in check:
        others = [_compare(entry, own, rows, of_method) for own in _configurations(levels, check, paired)]
        for one in found:
            _note_other_levels(one, [other for other in others if _where(other) == _where(one)])
    return found


def _configurations(rows, check, paired):
    """The seeds of each configuration: rows of the method beside the other's (`_than`) and their difference (`_paired`).

    Where one of the two has more images, the rows are those of the images that both have, if the run has such rows (`at` is their setting).
    """
    own, other = (rows[rows["method"] == check[side]] for side in ("method", "than"))
    seeds = own.merge(other, on=[*SAME, "at"], suffixes=("", "_than")).merge(paired, "left", SAME, suffixes=("", "_paired"))
    whole = seeds["at"] == seeds["setting"]
    shared = (seeds["n"] == seeds["n_paired"]) & (seeds["n_than"] == seeds["n_paired"])
    seeds = seeds[whole | shared].assign(last=whole & (seeds["n"] != seeds["n_than"])).sort_values("last", kind="stable")
    seeds = seeds.drop_duplicates([*SAME, "weights", "weights_than"]).sort_index()
    return [list(of.itertuples()) for _, of in seeds.groupby(TRAINED, sort=False)]


def _where(verdict):
    return verdict.profile, verdict.dataset, verdict.backbone, verdict.recipe


def _compare(entry, seeds, rows, of_method):
    """What one configuration says."""
    check, first = entry["check"], seeds[0]
    differences = [seed.value - seed.value_than if pd.isna(seed.value_paired) else seed.value_paired for seed in seeds]
    by_image = [_verdict(check, seed) for seed in seeds]
    interval = seed_interval(differences)
    if interval:
        said = _by_interval(check, *interval[1:])
    elif len(seeds) == 1 and first.weights != first.weights_than:
        said = "not comparable" if by_image[0] != "not decided" else "not decided"
    else:
        said = by_image[0] if len(set(by_image)) == 1 else "not decided"
    alone = (differences[0], first.ci_low_paired, first.ci_high_paired) if len(seeds) == 1 else (sum(differences) / len(seeds), None, None)
    mean, low, high = interval or alone
    where = {key: getattr(first, key) for key in ("paper", "profile", "dataset", "backbone", "recipe", "weights", "metric", "setting")}
    same_maps = _same_maps(seeds, of_method)
    return SimpleNamespace(
        entry=entry, verdict=said, seeds=seeds, by_image=by_image, differences=differences, mean=mean, low=low, high=high,
        same_maps=same_maps, digits=digits_of([value for seed in seeds for value in (seed.value, seed.value_than)]),
        kind="drawn" if first.dataset.startswith("drawn") else "photographs", flags=_flags(check, said, seeds, rows, same_maps), **where,
    )  # fmt: skip


def _verdict(check, seed):
    """The statement by the images of one seed.

    By the interval of the paired difference and its corrected p, both of which must decide. With a margin, not worse by more than that
    (non-inferiority, one-sided 2.5 %): by the interval alone, which then must come from `FEW` images or more.
    Without a paired difference by the order of two values whose own intervals lie apart; a margin is then not judged.
    """
    margin = "margin" in check
    if pd.isna(seed.value_paired):
        apart = seed.ci_low > seed.ci_high_than or seed.ci_high < seed.ci_low_than
        higher = seed.value > seed.value_than
        decided = "holds" if higher == (check["direction"] == "higher") else "does not hold"
        return decided if apart and not margin else "not decided"
    if seed.n_paired < FEW if margin else seed.same_as or seed.p_holm > 0.05:
        return "not decided"
    return _by_interval(check, seed.ci_low_paired, seed.ci_high_paired)


def _by_interval(check, low, high):
    """Whether all of the difference's interval lies on the statement's side of a loss of its margin."""
    worst, best = (low, high) if check["direction"] == "higher" else (-high, -low)
    margin = check.get("margin", 0)
    return "holds" if worst > -margin else "does not hold" if best < -margin else "not decided"


# ---- what stands beside a verdict -------------------------------------------------------------------------------------


def _flags(check, said, seeds, rows, same_maps):
    """What changes how a verdict reads, in words; a control that does as well matters where the statement holds."""
    first = seeds[0]
    flags = []
    if "pqf" in first.weights or "onnxzoo" in first.weights:
        flags.append("stand-in weights")
    if first.metric.endswith("_box"):
        flags.append("parts cut at the bounding box")
    if first.weights != first.weights_than:
        flags.append("another network for each method")
    if any(pd.isna(seed.value_paired) for seed in seeds):
        flags.append("no paired difference: intervals of each value alone")
    flags += [f"{name(check['method'])} is {name(other)} here" for other in same_maps if other not in {seed.same_as for seed in seeds}]
    same = _of_the_runs(rows, seeds)
    return [*flags, *(_controls(check, seeds, same) if said == "holds" else []), *_failed(check, same)]


def _of_the_runs(rows, seeds):
    return rows[(rows["profile"] == seeds[0].profile) & rows["key"].isin({seed.key for seed in seeds})]


def _same_maps(seeds, of_method):
    """Methods whose map the statement's method gives in the same runs: no metric of the maps tells the two apart."""
    own = _of_the_runs(of_method, seeds)
    own = own[(own["protocol"] != "network") & ~of_the_first(own)]
    alike = (own["same_as"] == own["than"]) | (own["value"].abs() < NEAR)
    return [than for than, all_alike in alike.groupby(own["than"], sort=False).all().items() if all_alike]


def _controls(check, seeds, same):
    """Controls of the same runs that are, on the mean of the seeds, at least as good as the method."""
    if check["metric"] == "accuracy":
        return []
    of = same[(same["metric"] == seeds[0].metric) & (same["setting"] == seeds[0].at) & (same["protocol"] == seeds[0].protocol)]
    means = of.groupby("method", sort=False)["value"].mean()
    sign = 1 if check["direction"] == "higher" else -1
    apart = {check["method"], check["than"]}
    better = [
        control
        for control, value in means.items()
        if (is_control(control) or control in UNTRAINED) and control not in apart and sign * value >= sign * means[check["method"]]
    ]
    best = sorted(better, key=lambda control: -sign * means[control])[:2]
    return [f"{CONTROL}: {name(control)}, {cell(means[control])}" for control in best]


def _failed(check, same):
    """Seeds under which a network of the comparison hardly learned."""
    found = []
    for method in (check["method"], check["than"]):
        accuracy = same[(same["metric"] == "accuracy") & (same["method"] == method)].groupby("seed")["value"].first()
        low = accuracy[accuracy < FAILED * accuracy.median()]
        found += [f"{name(method)} failed to train under seed {seed}: {cell(value)} % right" for seed, value in low.items()]
    return found


def _note_other_levels(one, others):
    """Say what the other settings of the same metric decide, where they do not say the same."""
    others = [other for other in others if other.setting != one.setting]
    for word in ("holds", "does not hold"):
        at = [other.setting for other in others if other.verdict == word]
        if at and word != one.verdict:
            one.flags.append(f"judged at {one.setting}; at {', '.join(at)} it {word}")
    if others and one.verdict in ("holds", "does not hold") and not any(other.verdict == one.verdict for other in others):
        one.flags.append(f"no other level decides it so ({', '.join(other.setting for other in others)})")


# ---- as HTML and MyST -------------------------------------------------------------------------------------------------


def badge(verdict, count=0):
    """A verdict as symbol and word, with the number of configurations if it is given."""
    symbol, kind = BADGES[verdict]
    times = f" <small>{count}</small>" if count else ""
    return f'<span class="badge badge-{kind}"><span aria-hidden="true">{symbol}</span> {verdict}{times}</span>'


def flag(words):
    """A small label."""
    return f'<span class="flag">{html.escape(words)}</span>'


def overall(found):
    """The word over several configurations: what at least half of them say and none contradicts."""
    counts = Counter(one.verdict for one in found)
    if len(counts) < 2:
        return next(iter(counts), "not run")
    decided = [word for word in ("holds", "does not hold") if counts[word]]
    return decided[0] if len(decided) == 1 and 2 * counts[decided[0]] >= len(found) else "not decided"


def matrix(entries, found):
    """Statements × (photographs | drawn) as an HTML table; each statement says whose it is and links to its own fold."""
    lines = ['<table class="matrix">', "<thead><tr><th>statement</th><th>on photographs</th><th>on drawn data</th></tr></thead>"]
    for paper in PAPERS:
        lines.append(f'<tbody><tr class="paper"><th colspan="3" scope="rowgroup">{name(paper)}</th></tr>')
        for entry in (entry for entry in entries if entry["paper"] == paper):
            sides = "".join(f"<td>{_side(entry, found, kind)}</td>" for kind in KINDS)
            lines.append(f'<tr><th scope="row">{_linked(entry)}</th>{sides}</tr>')
        lines.append("</tbody>")
    return "\n".join([*lines, "</table>", ""])


def _linked(entry, page=""):
    """A statement as a link to its fold, and a label that says whose it is."""
    whose = entry.get("whose", "the paper's claim")
    label_ = f'<span class="flag flag-{"ours" if whose == "our question" else "claim"}">{whose}</span>'
    return f'<a href="{page}#{entry["id"]}">{html.escape(entry["statement"])}</a> {label_}'


def _own(entry, found, kind):
    return [one for one in found if one.entry["id"] == entry["id"] and one.kind == kind]


def _word(entry, found, kind):
    """The verdict of a statement on photographs or on drawn data: of a study if there is one, else over all configurations."""
    own = _own(entry, found, kind)
    return entry.get("studied", {}).get(kind) or (overall(own) if own else "not run")


def _side(entry, found, kind):
    """The overall word of a cell of the matrix; where configurations differ, how many say what; what stands against one that holds."""
    counts, word = Counter(one.verdict for one in _own(entry, found, kind)), _word(entry, found, kind)
    if kind in entry.get("studied", {}):
        return badge(word)
    each = ", ".join(f"{counts[one]} {one}" for one in BADGES if counts[one])
    parts = [f"{badge(word)} <small>{each}</small>" if len(counts) > 1 else badge(word, counts[word])]
    return " ".join([*parts, *map(flag, _against_it(entry, found, kind))])


def _against_it(entry, found, kind):
    """What a reader must know of a statement that holds, from the configurations where it does."""
    held = [one for one in _own(entry, found, kind) if one.verdict == _word(entry, found, kind) == "holds"]
    shared = [CONTROL] * any(words.startswith(CONTROL) for one in held for words in one.flags)
    twins = [
        other for other in dict.fromkeys(other for one in held for other in one.same_maps) if all(other in one.same_maps for one in held)
    ]
    return shared + [f"{name(entry['check']['method'])} is {name(other)} there" for other in twins]


def box(entries, found, paper):
    """The verdicts of one paper as the box that its page opens with."""
    lines = [":::{admonition} What became of its statements", ":class: verdict-box", "", '<table class="matrix">']
    lines.append("<thead><tr><th>statement</th><th>photographs</th><th>drawn data</th></tr></thead><tbody>")
    for entry in (entry for entry in entries if entry["paper"] == paper):
        sides = "".join(f"<td>{_side(entry, found, kind)}</td>" for kind in KINDS)
        lines.append(f'<tr><th scope="row">{_linked(entry, "verdicts.html")}</th>{sides}</tr>')
    return "\n".join([*lines, "</tbody></table>", "", ":::", ""])


PRINTED_AS = {"all pairs": "mean", "plain": "cam"}  # our words for a setting and a network, and those of published.yaml


def published(entry, tables):
    """The values that others printed of a statement's two methods, with the mark that says how they are known; "" without any."""
    check, told = entry.get("check", {}), []
    names = [PRINTED_AS.get(check.get(side), check.get(side)) for side in ("method", "than")]
    wanted = check.get("setting")
    for table in (table for table in tables if table["paper"] == entry["paper"]):
        for column, (metric, setting) in enumerate(table["columns"]):
            if metric != check.get("metric") or (wanted and setting != PRINTED_AS.get(wanted, wanted)):
                continue
            for network, rows in table["backbones"].items():
                own, other = (rows.get(of, {column: None})[column] for of in names)
                if own is not None and other is not None:
                    where = ", ".join([setting] * (not wanted) + [name(network)] * (network != "not stated"))
                    told.append(f"{own:g} against {other:g}{f' ({where})' if where else ''}")
        if told:
            return f"Published ({table['mark']}): {'; '.join(told)}.\n"
    return ""


def details(entries, found, printed=()):
    """A fold for each statement: where it stands, its forest plot, and what each configuration says; book.js opens that of a link.

    ``printed``: the tables of what others printed.
    """
    parts = []
    for paper in PAPERS:
        parts.append(f"## {name(paper)}\n")
        for entry in (entry for entry in entries if entry["paper"] == paper):
            own = [one for one in found if one.entry["id"] == entry["id"]]
            parts += [f"::::{{dropdown}} {entry['statement']}", f":name: {entry['id']}", "", f"*Where it stands: {entry['source']}.*\n"]
            parts.append(published(entry, printed))
            if "seen" in entry:
                parts.append(f"{entry.get('answer', '').strip()} See {entry['seen']}.\n".lstrip())
            elif not own:
                parts.append(f"{entry['status'].capitalize()}: needs runs that are not part of this book yet.\n")
            if own:
                parts += [f"% forest: {entry['id']}\n", *(f"- {told(one)}" for one in own), ""]
            if own and "beside" in entry:
                parts.append(f"Read beside it: {entry['beside']}.\n")
            parts.append("::::\n")
    return "\n".join(parts)


def told(one):
    """A verdict in one line: the word, where, both values, the difference, the flags."""
    where = f"{place(one.dataset)}, {name(one.backbone)}{f', {one.setting}' if one.setting else ''}"
    text = f"{badge(one.verdict)} on {where}: {_numbers(one)}"
    return " ".join([text + ".", *map(flag, one.flags), rows_of(one)])


def rows_of(one):
    """A link to the rows of the Explorer that a verdict rests on: the paired differences, or the values where a run has none."""
    check = one.entry["check"]
    kind = "values" if any(pd.isna(seed.value_paired) for seed in one.seeds) else "differences"
    wanted = {"paper": one.paper, "dataset": one.dataset, "backbone": one.backbone, "metric": one.metric, "setting": one.setting}
    return rows_link(kind, **wanted, **pair(check, kind))


def pair(check, kind):
    """The two methods of a statement, as the Explorer's filters have them."""
    return {"method": check["method"], "than": check["than"]} if kind == "differences" else {"method": [check["method"], check["than"]]}


def _numbers(one):
    margin = f", margin {one.entry['check']['margin']:g}" if "margin" in one.entry["check"] else ""
    if len(one.seeds) == 1:
        return _against(one.seeds[0], one.digits, margin)
    if seed_interval(one.differences):
        counted = ", ".join(f"{word} under {count}" for word, count in Counter(one.by_image).most_common())
        means = (sum(getattr(seed, side) for seed in one.seeds) / len(one.seeds) for side in ("value", "value_than"))
        values = " against ".join(cell(value, digits=one.digits) for value in means)
        difference = over_seeds(one.differences, one.digits, "+")
        return f"{values}, mean difference {difference} over {len(one.seeds)} seeds{margin}; each seed alone: {counted}"
    words = [f" ({word})" if len(set(one.by_image)) > 1 else "" for word in one.by_image]  # where all say the same, the badge does
    listed = " · ".join(f"{_short(seed, one.digits)}{word}" for seed, word in zip(one.seeds, words, strict=True))
    n = one.seeds[0].n if pd.isna(one.seeds[0].n_paired) else one.seeds[0].n_paired
    return f"differences under {len(one.seeds)} seeds, n {n:,.0f}{margin}: {listed}"


def _cell(seed, digits, of="", sign=""):
    return cell(*(getattr(seed, key + of) for key in ("value", "ci_low", "ci_high")), digits=digits, sign=sign)


def _short(seed, digits):
    """A seed's paired difference, or the two values where a run has none."""
    if pd.isna(seed.value_paired):
        return f"{_cell(seed, digits)} against {_cell(seed, digits, '_than')}"
    return _cell(seed, digits, "_paired", "+")


def _against(seed, digits, margin):
    """The two values and their paired difference in words, with the margin or the corrected p, whichever decides."""
    apart = seed.n != seed.n_than
    n = f" (n {seed.n:,} and {seed.n_than:,})" if apart else ""
    if pd.isna(seed.value_paired):
        return f"{_cell(seed, digits)} against {_cell(seed, digits, '_than')}{n}"
    said = f"{cell(seed.value, digits=digits)} against {cell(seed.value_than, digits=digits)}{n}"  # whose own intervals decide nothing
    both = f" on the {seed.n_paired:,.0f} that both have" if apart else f", n {seed.n_paired:,.0f}"
    said += f", difference {_short(seed, digits)}{both}{margin}"
    if seed.same_as:
        return f"{said}; the same map as {name(seed.same_as)}"
    return said if margin else f"{said}, corrected p {f'{seed.p_holm:.2g}' if seed.p_holm >= 0.001 else 'below 0.001'}"


def cards(entries, found, papers):
    """A card for each paper: its idea, what became of its statements, the data, the cost of a map, what was read, what is missing."""
    lines = ["::::{grid} 1 1 2 2", ":gutter: 3", ""]
    for paper, told in papers.items():
        own = [entry for entry in claims(entries) if entry["paper"] == paper]
        lines += [
            f":::{{grid-item-card}} {name(paper)}",
            f":link: {paper}",
            ":link-type: doc",
            "",
            told["idea"],
            "",
            '<dl class="card-facts">',
        ]
        for kind in KINDS:
            words = Counter(_word(entry, found, kind) for entry in own)
            said = " ".join(badge(word, words[word]) for word in BADGES if words[word] and word != "not run") or badge("not run")
            lines.append(f"<dt>{kind}</dt><dd>{said}</dd>")
        tested = [one for one in found if one.paper == paper]
        data = dict.fromkeys(name(one.dataset).split(" (")[0] for one in sorted(tested, key=lambda one: KINDS.index(one.kind)))
        tested_on = ", ".join([*filter(None, [told.get("studied")]), *data])
        facts = {
            "tested on": tested_on,
            "cost of a map": told["cost"],
            "how the paper was known": told["read"],
            "what would change the verdict": told["missing"],
        }
        lines += [*(f"<dt>{what}</dt><dd>{html.escape(words)}</dd>" for what, words in facts.items()), "</dl>", ":::", ""]
    return "\n".join([*lines, "::::", ""])


def claims(entries):
    """The statements without our own questions."""
    return [entry for entry in entries if entry.get("whose") != "our question"]


WHERE = {"photographs": "photographs", "drawn": "drawn images, made by the project's own program so that the truth is known"}


def finding(entries, found):
    """The first page's sentences, one a kind of data: how many statements were tested, whose they are, how many hold, about what."""
    return " ".join(_finding([entry for entry in claims(entries) if _word(entry, found, kind) != "not run"], found, kind) for kind in KINDS)


def _finding(tested, found, kind):
    words, held = Counter(_word(entry, found, kind) for entry in tested), _held(tested, found, kind)
    ours = sum(entry.get("whose") == "our reading" for entry in tested)
    about = {}
    for entry in held:
        about.setdefault(entry.get("about", "maps"), []).append(entry)
    each = " and ".join(f"{len(own)} about {what}{_limits(own, found, kind)}" for what, own in about.items())
    return (
        f"Of {len(tested)} statements tested on {WHERE[kind]} ({len(tested) - ours} the papers' claims, {ours} our reading), "
        f"**{len(held)} {'holds' if len(held) == 1 else 'hold'}**{': ' if held else ''}{each}; {words['does not hold']} "
        f"{'does' if words['does not hold'] == 1 else 'do'} not, and the rest is undecided."
    )


def _limits(held, found, kind):
    """In brackets what stands against statements that hold; with a number where it is not against all of them."""
    against = Counter(words for entry in held for words in _against_it(entry, found, kind))
    said = {words: words.replace(CONTROL, "a control that explains nothing does as well") for words in against}
    told = [said[words] if count == len(held) else f"{count}: {said[words]}" for words, count in against.items()]
    return f" ({', and '.join(told)})" if told else ""


def holding(entries, found):
    """Which of the papers' statements hold, by kind of data, as a list; each with whose it is and what stands against it."""
    return "\n".join(
        f"- Holds on {where}: *{entry['statement']}* ({'; '.join([_of(entry), *_against_it(entry, found, kind)])})"
        for kind, where in (("photographs", "photographs"), ("drawn", "drawn images"))
        for entry in _held(claims(entries), found, kind)
    )


def _of(entry):
    return name(entry["paper"]) + (", our reading" if entry.get("whose") == "our reading" else "")


def _held(entries, found, kind):
    return [entry for entry in entries if _word(entry, found, kind) == "holds"]
