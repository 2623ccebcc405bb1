"""The style sheet of the page: light, dark, narrow and printed."""

from __future__ import annotations

from typing import Final

from tellframe.report.pictures import ramp_colors

_LIGHT: Final = """color-scheme:light;--page:#f5f5f2;--card:#fff;--ink:#16191d;--soft:#565e69;
--line:#d8dad6;--faint:#ecece8;--fake:#a93a06;--fake-tint:#fdf1ea;--real:#0a559b;--real-tint:#ebf3fb;
--unsure:#575c66;--unsure-tint:#f0f0f1;--seen:#3d4754;--link:#0a559b;"""

_DARK: Final = """color-scheme:dark;--page:#0f1216;--card:#171b21;--ink:#e9ebee;--soft:#a3abb6;
--line:#323943;--faint:#222830;--fake:#ff9d63;--fake-tint:#2a1d15;--real:#82bfff;--real-tint:#14222f;
--unsure:#bcc3cd;--unsure-tint:#22272e;--seen:#aeb8c5;--link:#82bfff;"""

_RULES: Final = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.55 ui-sans-serif,system-ui,
-apple-system,"Segoe UI",Roboto,Inter,"Helvetica Neue",Arial,sans-serif;
font-variant-numeric:tabular-nums}
main{max-width:1000px;margin:0 auto;padding:28px 24px 40px}
h1,h2,h3,h4{line-height:1.2;margin:0;letter-spacing:-.01em;text-wrap:balance}
p{margin:0 0 .6em}
a{color:var(--link)}
a:focus-visible,summary:focus-visible{outline:3px solid var(--link);outline-offset:2px}
body{overflow-wrap:break-word}
.facts td,.file,.lead,.reasons{overflow-wrap:anywhere}
code{font:.88em/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
.symbols{position:absolute}
.top{display:flex;justify-content:space-between;align-items:baseline;gap:4px 20px;flex-wrap:wrap;
padding-bottom:12px;margin-bottom:20px;border-bottom:1px solid var(--line);color:var(--soft);
font-size:14px}
.brand{font-weight:700;color:var(--ink);font-size:17px;letter-spacing:-.02em;margin:0}
.top p{margin:0}
.FAKE{--tone:var(--fake);--tint:var(--fake-tint)}
.REAL{--tone:var(--real);--tint:var(--real-tint)}
.INCONCLUSIVE{--tone:var(--unsure);--tint:var(--unsure-tint)}
.card+article{margin-top:48px}
article+article{margin-top:56px;padding-top:40px;border-top:2px solid var(--ink)}
.hero{background:var(--tint);border:1px solid var(--line);border-left:6px solid var(--tone);
border-radius:10px;padding:26px 30px;display:grid;grid-template-columns:1.25fr 1fr;gap:22px 44px}
.hero.alone{grid-template-columns:1fr}
.file{font-weight:600;margin-bottom:16px;color:var(--soft)}
.title{font-size:40px;font-weight:750;color:var(--tone);display:flex;gap:14px;align-items:center;
letter-spacing:-.025em;line-height:1.08}
.title .icon{width:42px;height:42px;flex:none}
.icon{width:1.05em;height:1.05em;vertical-align:-.15em;fill:var(--tone)}
.sign{fill:none;stroke:var(--card);stroke-width:2.6;stroke-linecap:round;stroke-linejoin:round}
.lead{font-size:18px;margin:14px 0 0}
.reasons{margin:12px 0 0;padding-left:1.2em}
.score{align-self:center;min-width:0}
.big{font-size:50px;font-weight:750;line-height:1;letter-spacing:-.03em;margin:0 0 4px}
.score .what{font-weight:600;margin-bottom:6px}
.score .meaning{font-size:14px;color:var(--soft);margin:8px 0 0}
.glance{display:grid;grid-template-columns:repeat(auto-fit,minmax(130px,1fr));gap:1px;
background:var(--line);border:1px solid var(--line);border-radius:10px;overflow:hidden;
margin:16px 0 0}
.glance div{background:var(--card);padding:12px 18px}
.glance dt{font-size:13px;color:var(--soft)}
.glance dd{margin:0;font-weight:650;font-size:18px}
.part{margin-top:40px}
.part>h2,.part>h3{font-size:23px;margin-bottom:14px}
.card{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:20px 24px;
margin-top:16px;min-width:0}
.card>h3,.card>h4{font-size:18px;margin-bottom:10px}
.person>header{display:flex;justify-content:space-between;align-items:flex-start;gap:8px 24px}
.person header p{margin:2px 0 0;color:var(--soft);font-size:15px}
.person h3,.person h4{font-size:20px}
.person .badge{font-size:15px;margin-left:8px}
.badge{display:inline-flex;align-items:center;gap:6px;color:var(--tone);font-weight:700;
white-space:nowrap}
.person header .figure{font-size:26px;font-weight:750;letter-spacing:-.02em;line-height:1.1;
text-align:right;margin:0;color:var(--ink);white-space:nowrap}
.person .figure small{display:block;font-size:13px;font-weight:400;letter-spacing:0;
color:var(--soft)}
figure{margin:0}
.plot{margin:18px 0 0}
.plot .timeline{display:block;margin-left:52px;width:calc(100% - 72px);overflow:visible}
.scale{display:block;width:100%;overflow:visible}
svg text{font-size:12px;fill:var(--soft)}
svg .mid{text-anchor:middle}
svg .end{text-anchor:end}
.track{fill:var(--card);stroke:var(--soft);stroke-width:1}
.value,.pointer{fill:var(--tone)}
.tick{stroke:var(--soft);stroke-width:1}
.zone{stroke:var(--tone);stroke-width:3}
.grid{stroke:var(--line);stroke-width:1}
.overall{stroke:var(--tone);stroke-width:1.5;stroke-dasharray:6 4}
.unseen{stroke:var(--faint);stroke-width:8}
.seen{stroke:var(--seen);stroke-width:8;stroke-linecap:round}
.guide{stroke:var(--soft);stroke-width:1;stroke-dasharray:1 3}
svg .letter{font-weight:700;font-size:13px;fill:var(--ink);text-anchor:middle}
.mark{stroke:var(--card);stroke-width:1.2}
.mark.high{fill:var(--fake)}
.mark.mid{fill:var(--unsure)}
.mark.low{fill:var(--real)}
.key{display:flex;flex-wrap:wrap;gap:2px 20px;font-size:13px;color:var(--soft);padding:0;
margin:6px 0 0 52px;list-style:none}
.key svg{vertical-align:-3px;margin-right:5px}
.strips{display:grid;grid-template-columns:1fr 1fr;gap:6px 28px;margin-top:18px}
.strip h4,.strip h5{font-size:15px;margin:0 0 8px}
.shots{display:grid;grid-template-columns:repeat(3,1fr);gap:10px}
.shot img{display:block;width:100%;height:auto;aspect-ratio:1;object-fit:contain;
background:var(--faint)}
.shot .pair{display:grid;gap:2px;border-radius:6px;overflow:hidden}
.shot figcaption{font-size:13px;line-height:1.35;margin-top:5px}
.shot b{font-size:14px}
.shot span{color:var(--soft);display:block}
.legend{display:flex;flex-wrap:wrap;align-items:center;gap:4px 12px;margin:16px 0 0;font-size:13px;
color:var(--soft)}
.legend .ramp{width:150px;height:12px;border-radius:3px;border:1px solid var(--line);
background:linear-gradient(90deg,RAMP);print-color-adjust:exact;-webkit-print-color-adjust:exact}
.legend p{margin:0;flex:1 1 260px}
.note{color:var(--soft);font-size:15px;margin:14px 0 0}
.warn{border-left:4px solid var(--fake);padding-left:12px;margin:12px 0 0}
details{margin-top:14px;font-size:14px}
summary{cursor:pointer;color:var(--link);width:fit-content}
.scroll{overflow-x:auto;margin-top:8px}
table{border-collapse:collapse;width:100%;font-size:15px}
caption{text-align:left;color:var(--soft);font-size:14px;padding-bottom:6px}
th,td{text-align:left;vertical-align:top;padding:7px 14px 7px 0;border-top:1px solid var(--line)}
thead th{border-top:0;font-size:13px;color:var(--soft);font-weight:600;white-space:nowrap}
td.n,th.n{text-align:right;white-space:nowrap;padding-right:36px}
tbody tr:first-child>*{border-top-color:var(--soft)}
.facts tr:first-child>*,.counts tr:first-child>*{border-top:0}
th:last-child,td:last-child{padding-right:0}
tbody th{font-weight:600}
.facts th{width:34%;font-weight:400;color:var(--soft);overflow-wrap:normal}
.facts,.counts{font-size:14.5px}
.counts th{font-weight:400;color:var(--soft)}
.counts td{text-align:right;white-space:nowrap}
.videos th[scope=row]{min-width:13em;max-width:22em;overflow-wrap:anywhere}
.videos .p{white-space:nowrap}
.pairs{display:grid;grid-template-columns:1fr 1fr;gap:16px;margin-top:16px}
.pairs>div{display:flex;flex-direction:column;gap:16px;min-width:0}
.pairs .card{margin:0}
.limits{margin:0;padding-left:1.2em}
.limits li{margin:0 0 .5em;max-width:75ch}
.foot{margin-top:40px;padding-top:14px;border-top:1px solid var(--line);font-size:13px;
color:var(--soft)}
.tally{display:flex;flex-wrap:wrap;gap:6px 24px;margin:10px 0 20px;padding:0;list-style:none}
@media screen and (max-width:760px){
main{padding:16px 14px 28px}
.hero{grid-template-columns:1fr;padding:20px}
.title{font-size:31px}
.title .icon{width:34px;height:34px}
.pairs,.strips{grid-template-columns:1fr}
.strips{gap:18px}
.card{padding:16px}
.facts th{width:38%}
.stack thead{position:absolute;clip-path:inset(50%);height:1px;overflow:hidden}
.stack tr:first-child{border-top:0}
.stack tr{display:grid;grid-template-columns:minmax(50%,auto) 1fr;column-gap:12px;
border-top:1px solid var(--line);padding:8px 0}
.stack th,.stack td{border:0;padding:2px 0;text-align:left}
.stack th{grid-column:1/-1;max-width:none}
.stack td.wide{grid-column:1/-1}
.stack td[data-name]::before{content:attr(data-name) " ";color:var(--soft);font-size:13px}
}
@media print{
:root{LIGHT --page:#fff}
body{font-size:10.5pt}
main{max-width:none;padding:0}
.hero,.shot,.plot,.person,.pairs,tr{break-inside:avoid}
h2,h3,h4{break-after:avoid}
.card+article{margin-top:48px}
article+article{break-before:page;border:0;margin:0;padding:0}
details:not([open]){display:none}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}
}
"""


def style_sheet() -> str:
    """Return the CSS of the page, ready for a `<style>` element."""
    rules = _RULES.replace("RAMP", ",".join(ramp_colors())).replace("LIGHT", _LIGHT)
    dark = f"@media(prefers-color-scheme:dark){{:root{{{_DARK}}}}}"
    # The rules come last, so that their print block wins over the dark one.
    return f":root{{{_LIGHT}}}\n{dark}{rules}"
