"""What a text claims, and what supports it: tables of cases in several languages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loremesh_agent.domain.claims import check, support
from loremesh_agent.domain.statements import statements

from .conftest import LIGHTHOUSE, SOUP

pytestmark = pytest.mark.unit

PASSAGES = (LIGHTHOUSE, SOUP)
QUESTION = "How high is the lighthouse of Genoa?"
GERMAN = "Der Leuchtturm von Genua ist 77 Meter hoch. Er wurde 1128 gebaut und nach einem Krieg wieder errichtet."
THAI = "ประภาคารเจนัวสูง 77 เมตร สร้างขึ้นในปี ค.ศ. 1128 และถูกสร้างขึ้นใหม่ในปี 1543 หลังสงคราม"
CHINESE = "热那亚灯塔高77米。它建于1128年，1543年战后重建。"
FIGURES = "Revenue was 1,128,500 euros in 2021. Profit rose to 3.5 per cent. It was not repeated in 2022."


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1]",
        "Hello!",
        "Of course! Here is what I found:",
        "Thank you for your question.",
        "I hope this helps!",
        "Let me know if you need anything else.",
        "Do you mean the lighthouse of Genoa in Italy?",
        "How high is the lighthouse of Genoa?",
        "The lighthouse of Genoa is how high.",
        "The documents do not say how high the tower of Pisa is.",
        "I don't know.",
        "According to the provided document:",
        "# Facts about Genoa's harbour",
        "```\nprint('made of stone')\n```",
        "สวัสดีครับ",
        "คุณหมายถึงประภาคารเจนัวหรือไม่",
        "ไม่พบข้อมูลในเอกสาร",
        "Guten Tag!",
        "您好！",
    ],
)
def test_what_says_nothing_of_the_world_is_no_claim(text: str) -> None:
    assert check(text, question=QUESTION, passages=PASSAGES) == []


@pytest.mark.parametrize(
    ("text", "question", "passage"),
    [
        ("The lighthouse is 77 metres high.", "", LIGHTHOUSE),
        ("It is 77 metres high [1].", QUESTION, LIGHTHOUSE),
        ("77 metres", QUESTION, LIGHTHOUSE),
        ("Genoa.", "Where is the lighthouse that is 77 metres high?", LIGHTHOUSE),
        ("It was rebuilt after a war in 1543.", "", LIGHTHOUSE),
        ("The lamp can be seen from 50 kilometres away.", "", LIGHTHOUSE),
        ("- built in 1128", "When was it built?", LIGHTHOUSE),
        ("2. It was built in 1128.", "", LIGHTHOUSE),
        ('It is said to be "77 metres high".', "", LIGHTHOUSE),
        ("Revenue was 1.128.500 euros in 2021.", "", FIGURES),
        ("Profit rose to 3.50 per cent.", "", FIGURES),
        ("The profit wasn't repeated in 2022.", "", FIGURES),
        ("The crew has 3 keepers at night.", "", "The crew has three keepers at night."),
        ("Der Leuchtturm ist 77 Meter hoch.", "", GERMAN),
        ("ประภาคารเจนัวสูง 77 เมตร", "", THAI),
        ("สร้างขึ้นในปี ค.ศ. 1128", "ประภาคารเจนัวสร้างเมื่อใด", THAI),
        ("ประภาคารสูง ๗๗ เมตร", "", THAI),
        ("灯塔高77米。", "", CHINESE),
        ("它建于1128年。", "", CHINESE),
    ],
)
def test_what_stands_in_a_passage_is_supported(text: str, question: str, passage: str) -> None:
    (claim,) = check(text, question=question, passages=[SOUP, passage])
    assert [span.passage for span in claim.spans] == [2]
    assert 0.5 <= claim.spans[0].overlap <= 1


@pytest.mark.parametrize(
    ("text", "question", "passage"),
    [
        ("The lighthouse is 78 metres high.", "", LIGHTHOUSE),
        ("It was built in 1543.", "Was the lighthouse built in 1543 or 1544?", SOUP),
        ("It was built in 1182.", "When was it built?", LIGHTHOUSE),
        ("The lighthouse of Venice is 77 metres high.", "How high is the lighthouse of Venice?", LIGHTHOUSE),
        ("The lighthouse of Genoa is painted bright red.", "", LIGHTHOUSE),
        ("The lighthouse is not 77 metres high.", "", LIGHTHOUSE),
        ("It was repeated in 2022.", "", FIGURES),
        ("Profit rose to 35 per cent.", "", FIGURES),
        ("Profit rose to 5 per cent, and again by 3.", "", FIGURES),
        ('It is called "the lantern of the sea".', "What is the lighthouse of Genoa called?", LIGHTHOUSE),
        ("The lamp was lit by an emperor.", "Who lit the lamp?", LIGHTHOUSE),
        ("The documents do not mention it, but the lamp was lit by an emperor.", "Who lit the lamp?", LIGHTHOUSE),
        ("Der Leuchtturm ist 78 Meter hoch.", "", GERMAN),
        ("Der Leuchtturm ist nicht 77 Meter hoch.", "", GERMAN),
        ("ประภาคารเจนัวสูง 87 เมตร", "", THAI),
        ("ประภาคารเจนัวไม่ได้สูง 77 เมตร", "", THAI),
        ("ซุปฟักทองทำจากกะทิและขิง", "", THAI),
        ("灯塔高87米。", "", CHINESE),
    ],
)
def test_what_no_passage_says_is_not_supported(text: str, question: str, passage: str) -> None:
    (claim,) = check(text, question=question, passages=[SOUP, passage])
    assert claim.spans == ()


def test_a_text_is_taken_apart_into_its_claims_with_offsets_in_code_points() -> None:
    text = (
        "Hello 👋! The lighthouse is 77 metres high. [1] It was built in 1128 [1][7].\n\n"
        "Dr. Smith says it is red [2]. Is it old? Soup is made of pumpkin and ginger. [1, 2]"
    )
    claims = check(text, question=QUESTION, passages=PASSAGES)
    assert [(text[claim.start : claim.end], claim.supported, claim.wrong) for claim in claims] == [
        ("The lighthouse is 77 metres high. [1]", True, ()),
        ("It was built in 1128 [1][7].", True, (7,)),
        ("Dr. Smith says it is red [2].", False, (2,)),
        ("Soup is made of pumpkin and ginger. [1, 2]", True, (1,)),
    ]
    assert support(claims) == 0.75
    (span,) = claims[3].spans
    assert (span.passage, span.cited) == (2, True)
    assert SOUP[span.start : span.end] == "Pumpkin soup is made of pumpkin, ginger and coconut milk."


def test_thai_is_cut_at_the_spaces_between_its_phrases() -> None:
    text = "ประภาคารเจนัวสร้างขึ้นใหม่ในปี 1543 หลังสงครามครั้งใหญ่ มันทำมาจากหินอ่อนสีขาวล้วนทั้งหลัง"
    claims = check(text, passages=[THAI])
    assert [text[claim.start : claim.end] for claim in claims] == [
        "ประภาคารเจนัวสร้างขึ้นใหม่ในปี 1543 หลังสงครามครั้งใหญ่",
        "มันทำมาจากหินอ่อนสีขาวล้วนทั้งหลัง",
    ]
    assert [claim.supported for claim in claims] == [True, False]


def test_a_claim_that_cites_two_passages_may_rest_on_both() -> None:
    text = "The lighthouse is 77 metres high [1], and the soup of pumpkin and ginger is boiled for half an hour [2]."
    (claim,) = check(text, passages=PASSAGES)
    assert sorted(span.passage for span in claim.spans) == [1, 2]
    (uncited,) = check(text.replace("[1]", ""), passages=PASSAGES)
    assert not uncited.supported


def test_a_title_is_true_of_all_its_passage() -> None:
    claimed = "The lighthouse of Genoa has a lamp seen from 50 kilometres."
    passage = "Its lamp can be seen 50 kilometres away."
    assert not check(claimed, passages=[passage])[0].supported
    assert check(claimed, passages=[passage], titles=["The lighthouse of Genoa"])[0].supported


def test_the_refusal_of_an_agent_is_no_claim() -> None:
    refusal = "Leider geht das aus den Unterlagen nicht hervor."
    assert check(refusal, passages=PASSAGES, refusal=refusal) == []
    assert check(refusal, passages=PASSAGES) != []


TEXT = st.text(st.sampled_from("aB 7.,;!?\n[]()\"'#-`é。ประ 1灯👋\u0301"), max_size=120) | st.text(max_size=60)


@given(TEXT, TEXT, TEXT)
def test_whatever_the_text_claims_lie_in_it_in_order_and_spans_in_their_passages(
    text: str, question: str, passage: str
) -> None:
    end = 0
    for claim in check(text, question=question, passages=[passage, text]):
        assert end <= claim.start < claim.end <= len(text)
        end = claim.end
        for span in claim.spans:
            assert 0 <= span.start < span.end <= len((passage, text)[span.passage - 1])
            assert 0 < span.overlap <= 1


@given(TEXT)
def test_statements_leave_out_no_letter_but_marks_headings_and_code(text: str) -> None:
    text = text.replace("`", "").replace("#", "")
    said = "".join(text[each.start : each.end] for each in statements(text))
    assert [each for each in said if each.isalpha()] == [each for each in text if each.isalpha()]
