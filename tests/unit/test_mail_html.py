"""The HTML of mails: what the allow-list refuses, at which line, and that no layout needs more than it allows."""

from __future__ import annotations

from pathlib import Path

import pytest

from channels.base import Email
from dispatcher.content import MessageLinks, check, load
from dispatcher.content.guard import ContentRequirements, failed_check
from dispatcher.content.mail_html import read_mail_html
from dispatcher.domain.decision import ReasonCode
from tests.support.template_folder import SECRET, refusal, render_request, small_folder, write

HOSTILE = (
    "<a href='javascript:x'>y</a>",
    "<a href=javascript:x>y</a>",
    '<A HREF="JavaScript:x">y</A>',
    '<a href="java&#10;script:x">y</a>',
    '<a href="jav&#x61;script&colon;x">y</a>',
    '<a href=" javascript:x">y</a>',
    '<a href="//tracker.example/x">y</a>',
    '<a href="http://bank.example/x">y</a>',
    '<a href="https://user@bank.example/">y</a>',
    '<a href="https:\\\\bank.example">y</a>',
    '<a href="https://bank.example" ping="https://t.example">y</a>',
    '<a href="data:text/html,x">y</a>',
    '<a href="mailto:x@bank.example?bcc=all@t.example">y</a>',
    '<a href="mailto:x@bank.example?subject=a&amp;body=b">y</a>',
    '<a href="mailto:x@bank.example?subject=a%0D%0ABcc:b@t.example">y</a>',
    '<img src="https://bank.example/a.png" onerror="alert(1)">',
    "<img src=x onerror=alert(1)>",
    "<IMG SRC='data:image/png;base64,x'>",
    '<img src="https://bank.example/a.png" srcset="https://t.example/a.png 2x">',
    '<img src="https://bank.example/a.png"/onerror=alert(1)>',
    "<svg/onload=alert(1)>",
    "<scr<script>ipt>alert(1)</script>",
    "<SCRIPT>alert(1)</SCRIPT>",
    "<script\n>alert(1)</script>",
    '<meta http-equiv="refresh" content="0;url=https://t.example">',
    "<META HTTP-EQUIV=Refresh CONTENT=0>",
    '<link rel="stylesheet" href="https://t.example/a.css">',
    '<style>@import "https://t.example/a.css";</style>',
    '<style>@\\69mport "https://t.example/a.css";</style>',
    "<style>p { background: url(http://t.example/a) }</style>",
    '<table background="http://t.example/a.png"><tr><td>x</td></tr></table>',
    "<td BACKGROUND='//t.example/a.png'>x</td>",
    "<p style=\"background:url('javascript:x')\">x</p>",
    '<p style="background:u\\72l(https://t.example/a)">x</p>',
    "<p style=\"background:image-set('https://t.example/a' 1x)\">x</p>",
    '<p style="width:expression(alert(1))">x</p>',
    '<p style="-moz-binding:url(https://t.example/a)">x</p>',
    '<p style="behavior:url(#x)">x</p>',
    "<p style=\"color:{{ first_name or '' }}\">x</p>",
    """<p style='font-family:"/*";background:url(http://t.example/o.gif);color:"*/"'>x</p>""",
    """<style>a{content:"/*"} @import 'https://t.example/a.css'; c{content:"*/"}</style>""",
    """<style>a{content:'/*'} b{background:url("http://t.example/a")} c{content:'*/'}</style>""",
    """<p style="x:url(https://bank.example/*);background:url(http://t.example/a);y:url(https://bank.example/*/)">x</p>""",
    '<p style="x:url(https://bank.example/*)">x</p>',
    '<p style="background:url(var(--x))">x</p>',
    '<p style="background:url(\'https://bank.example/a.png">x</p>',
    "<p style=\"color:red /* {{ hobby or '' }} */\">x</p>",
    "<p style=\"content:'url(https://t.example/a)'\">x</p>",
    '<iframe src="https://bank.example"></iframe>',
    '<object data="https://bank.example"></object>',
    '<embed src="https://bank.example">',
    '<form action="https://t.example"><input name="pin"></form>',
    '<button formaction="javascript:x">x</button>',
    '<base href="https://t.example/">',
    '<video src="https://t.example/a.mp4"></video>',
    '<body onload="x">',
    "<p onmouseover=x>y</p>",
    "<p onmouseover = x>y</p>",
    "<p title={{ first_name or '' }}>y</p>",
    "<p {{ first_name or '' }}>y</p>",
    "<{{ first_name or 'b' }}>y",
    '<scr{{ "ipt" }}>alert(1)</script>',
    "<scr{% if true %}ipt{% endif %}>alert(1)</script>",
    "<a href=\"{{ 'javascript:x' }}\">y</a>",
    "<a href=\"{{ first_name or '' }}\">y</a>",
    "<!--[if mso]><script>x</script><![endif]-->",
    '<!--[if mso]><img src="http://t.example/a.png"><![endif]-->',
    "<!--[if !mso]><!--><img src=x onerror=x><!--<![endif]-->",
    "<!-- <img src=x onerror=x> -->",
    "<!-- x --!><img src=x onerror=x> -->",
    '<?xml-stylesheet href="https://t.example"?>',
    "<![CDATA[<img src=x onerror=x>]]>",
    '<noscript><img src="https://t.example/a.png"></noscript>',
    '<math href="javascript:x">y</math>',
    '<a xlink:href="javascript:x">y</a>',
    "<img src=\"{{ 'https://' }}{{ first_name or 'a' }}.t.example/\">",
    "<isindex action=javascript:x>",
    '<xss style="xss:expression(x)">',
    "<textarea><img src=x onerror=x></textarea>",
    "<template><img src=x onerror=x></template>",
)

HARMLESS = (
    '<a href="HTTPS://www.bank.example/x?a=1&amp;b=2#c">y</a>',
    "<a href='https://bank.example'>y</a>",
    '<a href="https://www.bank.example/?t={{ mode }}">y</a>',
    "<a href=\"{% if mode == 'tailored' %}https://bank.example/a{% else %}https://bank.example/b{% endif %}\">y</a>",
    '<a href="mailto:help@bank.example?subject=Loan%20offer">y</a>',
    '<a href="tel:+3220000000">y</a>',
    '<a href="#top">y</a>',
    '<img src="https://bank.example/a.png" width="1" alt="">',
    '<td background="https://bank.example/a.png">x</td>',
    "<p style=\"font-family:'Segoe UI'; color:rgb(1, 2, 3)\">x</p>",
    "<style>@media (max-width: 640px) { .a:not(.b) { background: url('https://bank.example/a.png') } }</style>",
    "<style>/* a /* remark */ p { color: red } /* url(x) @import <b> */</style>",
    "<p style=\"background:url( 'https://bank.example/a.png' )\">x</p>",
    '<!--[if mso]><v:rect href="https://bank.example/"><w:anchorlock/></v:rect><![endif]-->',
    "<!--[if !mso]><!--><b>x</b><!--<![endif]-->",
    "<!-- a remark -->",
    "1 < 2 &amp;&amp; onerror=nothing, url(x), javascript: and @import are words here",
)


def folder_with(tmp_path: Path, snippet: str) -> Path:
    files = small_folder()
    files["hello/fr/email.html"] = files["hello/fr/email.html"].replace("<p title", f"{snippet}\n<p title", 1)
    return write(tmp_path, files)


@pytest.mark.parametrize("snippet", HOSTILE)
def test_hostile_html_is_a_fault_at_its_line(tmp_path: Path, snippet: str) -> None:
    faults = check(folder_with(tmp_path, snippet))
    assert ("hello/fr/email.html", 4) in {(fault.file, fault.line) for fault in faults}, "\n".join(map(str, faults))


@pytest.mark.parametrize("snippet", HARMLESS)
def test_harmless_html_is_no_fault(tmp_path: Path, snippet: str) -> None:
    assert check(folder_with(tmp_path, snippet)) == []


def test_a_branch_that_no_sample_reaches_is_checked(tmp_path: Path) -> None:
    snippet = "{% if hobby == 'chess' %}\n<img src=x\n onerror=alert(1)>{% endif %}"
    faults = check(folder_with(tmp_path, "{% if mode == 'tailored' %}" + snippet + "{% endif %}"))
    assert [(fault.line, fault.field) for fault in faults] == [(5, "img src"), (6, "img onerror")]


def test_a_shared_macro_is_checked_at_its_own_line(tmp_path: Path) -> None:
    files = small_folder()
    files["_shared/macros.html"] += "\n\n{% macro tracker() %}<img src=x onerror=y>{% endmacro %}"
    assert {(fault.file, fault.line) for fault in check(write(tmp_path, files))} == {("_shared/macros.html", 3)}


def test_a_link_that_a_macro_gets_is_a_fault_where_it_is_written(tmp_path: Path) -> None:
    faults = check(folder_with(tmp_path, "{{ button('javascript:alert(1)') }}"))
    assert {(fault.file, fault.line, fault.value) for fault in faults} == {("hello/fr/email.html", 4, "javascript:alert(1)")}


@pytest.mark.parametrize("specialised", [False, True])
def test_what_only_some_values_reach_is_refused_at_render(tmp_path: Path, specialised: bool) -> None:
    snippet = "{% if hobby == '" + SECRET + "' %}<scr{{ 'ipt' }}>x</script>{% endif %}"
    branch = "{% if mode == 'tailored' %}" + snippet.replace("<scr{{ 'ipt' }}>", "{{ '<' }}script>") + "{% endif %}"
    template = load(folder_with(tmp_path, branch), (lambda: 1.0) if specialised else None)["hello"]
    assert template.render(render_request(language="fr"))
    link = "{% if hobby == '" + SECRET + "' %}{{ button('https:bank.example') }}{% endif %}"
    link = "{% if mode == 'tailored' %}" + link + "{% endif %}"
    template = load(folder_with(tmp_path / "link", link), (lambda: 1.0) if specialised else None)["hello"]
    assert template.render(render_request(language="fr"))
    request = render_request(language="fr", data={**render_request().data, "hobby": SECRET})
    for _ in range(2):  # with a new path, and along it
        assert refusal(template, request) == (ReasonCode.CONTENT_GUARD, "link_scheme")


@pytest.mark.parametrize("html", ["<img src=x onerror=y>", "<body><body onload=x>", "a\0b", "<svg/onload=x>", "<b>\ud800</b>"])
def test_the_guard_names_its_check_of_the_html(html: str) -> None:
    requirements = ContentRequirements(commercial=False, warning="", mark="", sender="")
    assert failed_check(Email("B", "b@bank.example", "Hello", html, "x"), "", requirements) == "mail_html"


def test_the_unsubscribe_link_must_be_a_link_for_everybody() -> None:
    requirements = ContentRequirements(True, "", "", "", MessageLinks("https://bank.example/u", ""))
    link = '<a href="https://bank.example/u">x</a>'
    mails = [
        Email("B", "b@bank.example", "Hello", html, "https://bank.example/u")
        for html in (
            link,
            f"<!--[if mso]>{link}<![endif]-->",
            f"<p title='{link}'>x</p>",
            "<a title='href=\"https://bank.example/u\"'>x</a>",
        )
    ]
    assert [failed_check(mail, "", requirements) for mail in mails] == [None, "way_out", "way_out", "way_out"]


def test_deep_nesting_hides_nothing() -> None:
    assert read_mail_html("<div>" * 5_000 + "<script>x</script>").faults
