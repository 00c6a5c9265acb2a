"""The works that methods paragraphs cite, for pages and for BibTeX."""

from __future__ import annotations

import re
from dataclasses import dataclass

MARK = re.compile(r"\[@([a-z0-9]+)\]")
"""As pandoc writes a citation."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """A work that is cited.

    Parameters
    ----------
    short : str
        As text names it.
    kind : str
        Of the BibTeX entry.
    author, title, where, year, doi : str
    """

    short: str
    kind: str
    author: str
    title: str
    where: str
    year: str
    doi: str


WORKS = {
    "defossez2022": Work(
        short="Défossez et al. 2022", kind="article",
        author="Défossez, Alexandre and Copet, Jade and Synnaeve, Gabriel and Adi, Yossi",
        title="High Fidelity Neural Audio Compression", where="arXiv:2210.13438", year="2022",
        doi="10.48550/arXiv.2210.13438",
    ),
    "haxby2011": Work(
        short="Haxby et al. 2011", kind="article",
        author="Haxby, James V. and Guntupalli, J. Swaroop and Connolly, Andrew C. and "
        "Halchenko, Yaroslav O. and Conroy, Bryan R. and Gobbini, M. Ida and Hanke, Michael and "
        "Ramadge, Peter J.",
        title="A common, high-dimensional model of the representational space in human ventral "
        "temporal cortex",
        where="Neuron 72:404-416", year="2011", doi="10.1016/j.neuron.2011.08.026",
    ),
    "breiman1996": Work(
        short="Breiman 1996", kind="article", author="Breiman, Leo", title="Stacked regressions",
        where="Machine Learning 24:49-64", year="1996", doi="10.1007/BF00117832",
    ),
    "nichols2002": Work(
        short="Nichols & Holmes 2002", kind="article",
        author="Nichols, Thomas E. and Holmes, Andrew P.",
        title="Nonparametric permutation tests for functional neuroimaging: a primer with examples",
        where="Human Brain Mapping 15:1-25", year="2002", doi="10.1002/hbm.1058",
    ),
    "dupre2022": Work(
        short="Dupré la Tour et al. 2022", kind="article",
        author="Dupré la Tour, Tom and Eickenberg, Michael and Nunez-Elizalde, Anwar O. and "
        "Gallant, Jack L.",
        title="Feature-space selection with banded ridge regression", where="NeuroImage 264:119728",
        year="2022", doi="10.1016/j.neuroimage.2022.119728",
    ),
    "nishimoto2011": Work(
        short="Nishimoto et al. 2011", kind="article",
        author="Nishimoto, Shinji and Vu, An T. and Naselaris, Thomas and Benjamini, Yuval and "
        "Yu, Bin and Gallant, Jack L.",
        title="Reconstructing Visual Experiences from Brain Activity Evoked by Natural Movies",
        where="Current Biology 21:1641", year="2011", doi="10.1016/j.cub.2011.08.031",
    ),
    "goutte2000": Work(
        short="Goutte et al. 2000", kind="article",
        author="Goutte, Cyril and Nielsen, Finn Årup and Hansen, Lars Kai",
        title="Modeling the hemodynamic response in fMRI using smooth FIR filters",
        where="IEEE Transactions on Medical Imaging 19:1188-1201", year="2000",
        doi="10.1109/42.897811",
    ),
    "kunsch1989": Work(
        short="Künsch 1989", kind="article", author="Künsch, Hans R.",
        title="The Jackknife and the Bootstrap for General Stationary Observations",
        where="Annals of Statistics 17:1217-1241", year="1989", doi="10.1214/aos/1176347265",
    ),
    "loshchilov2019": Work(
        short="Loshchilov and Hutter 2019", kind="inproceedings",
        author="Loshchilov, Ilya and Hutter, Frank", title="Decoupled Weight Decay Regularization",
        where="ICLR", year="2019", doi="10.48550/arXiv.1711.05101",
    ),
    "nastase2019": Work(
        short="Nastase et al. 2019", kind="article",
        author="Nastase, Samuel A. and Gazzola, Valeria and Hasson, Uri and Keysers, Christian",
        title="Measuring shared responses across subjects using intersubject correlation",
        where="Social Cognitive and Affective Neuroscience 14:667-685", year="2019",
        doi="10.1093/scan/nsz037",
    ),
    "paszke2019": Work(
        short="Paszke et al. 2019", kind="inproceedings", author="Paszke, Adam and others",
        title="PyTorch: An Imperative Style, High-Performance Deep Learning Library",
        where="NeurIPS 32", year="2019", doi="10.48550/arXiv.1912.01703",
    ),
    "schoppe2016": Work(
        short="Schoppe et al. 2016", kind="article",
        author="Schoppe, Oliver and Harper, Nicol S. and Willmore, Ben D. B. and King, Andrew J. "
        "and Schnupp, Jan W. H.",
        title="Measuring the Performance of Neural Models",
        where="Frontiers in Computational Neuroscience 10:10", year="2016",
        doi="10.3389/fncom.2016.00010",
    ),
}  # fmt: skip


def cited(text: str) -> list[str]:
    """Return the keys that a text cites, each once, in their order."""
    return list(dict.fromkeys(MARK.findall(text)))


def in_words(text: str) -> str:
    """Return a text that names works as a page does.

    Examples
    --------
    >>> in_words("AdamW [@loshchilov2019] was used.")
    'AdamW (Loshchilov and Hutter 2019) was used.'
    """
    return MARK.sub(lambda found: f"({WORKS[found[1]].short})", text)


def bibtex(keys: list[str]) -> str:
    """Return BibTeX entries."""
    entries = []
    for key in sorted(keys):
        work = WORKS[key]
        place = "booktitle" if work.kind == "inproceedings" else "journal"
        fields = {"author": work.author, "title": work.title, place: work.where,
                  "year": work.year, "doi": work.doi}  # fmt: skip
        lines = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
        entries.append(f"@{work.kind}{{{key},\n{lines}\n}}\n")
    return "\n".join(entries)
