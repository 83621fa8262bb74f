"""What a scripted model answers the agents of the crews and flows built in, and what must come of it.

Whoever drives them finds an answer by the agent's role, which every question to a model holds, and by how often that
agent was asked.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Script:
    """One run from its inputs to its end."""

    name: str
    # `crew` or `flow`.
    kind: str
    definition_id: str
    # In place of the example, where there are any.
    inputs: Mapping[str, Any] | None = None
    # By the role of the agent, with its inputs filled in: its answers, in turn.
    answers: Mapping[str, tuple[str, ...]]
    # What a human says of each output that they are asked to accept: "" approves, anything else replaces it.
    humans: tuple[str, ...] = ()
    status: str = "COMPLETED"
    output: str
    # Tasks of a crew, or states of a flow, each visit in its turn.
    path: tuple[str, ...]
    # How many tasks are in work at once at most, child runs counted.
    at_once: int = 1
    # What some agent must have been shown that another wrote, by task or state.
    shown: Mapping[str, str] = field(default_factory=dict)

    def role(self, instructions: str) -> str:
        """Whose instructions they are: the longest role that fits, since one may be the end of another."""
        return max((role for role in self.answers if f"You are {role}." in instructions), key=len)


_NOTES = "- Bees see polarised light.\n- They dance to tell the way."
_ARTICLE = "Bees find home by the sun.\n\nThey tell each other the way by dancing."
_SALT = "- Rivers carry salt to the sea.\n- Only water leaves it again."
_FIRST, _SECOND = "The sea is salty.", "Rivers carry salt to the sea, and only water leaves it again."
_UNSALTED = "revision: Say where the salt comes from."

SCRIPTS = (
    Script(
        name="an article is written from what was found",
        kind="crew",
        definition_id="research",
        answers={"Senior Research Analyst": (_NOTES,), "Writer": (_ARTICLE,)},
        output=_ARTICLE,
        path=("research", "writing"),
        shown={"writing": _NOTES},
    ),
    Script(
        name="only the topic is needed",
        kind="crew",
        definition_id="research",
        inputs={"topic": "bees"},
        answers={"Senior Research Analyst": (_NOTES,), "Writer": (_ARTICLE,)},
        output=_ARTICLE,
        path=("research", "writing"),
        shown={"writing": "Write a blog post about bees."},
    ),
    Script(
        name="three reviewers read at once and one verdict comes of it",
        kind="crew",
        definition_id="code-review",
        answers={
            "Security reviewer of Python code": ("Line 2 takes SQL from a caller.",),
            "Performance reviewer of Python code": ("Line 3 filters what the database could.",),
            "Quality reviewer of Python code": ("Line 3 fails where there is no such user.",),
            "Lead reviewer": ("request changes\n- SQL from a caller",),
        },
        output="request changes\n- SQL from a caller",
        path=("security-review", "performance-review", "quality-review", "verdict"),
        at_once=3,
        shown={"verdict": "Line 3 fails where there is no such user."},
    ),
    Script(
        name="a customer is answered in English",
        kind="flow",
        definition_id="sales-support",
        answers={
            "Product Specialist": ("- It runs on one machine, without a network.",),
            "Sales Representative": ("Yes, it can. Shall I show you how?",),
        },
        output="Yes, it can. Shall I show you how?",
        path=("language", "english", "answered"),
        shown={"reply": "- It runs on one machine, without a network."},
    ),
    Script(
        name="a customer is answered in Thai",
        kind="flow",
        definition_id="sales-support",
        inputs={"product": "Loremesh", "question": "ราคาเท่าไร", "language": "Thai"},
        answers={
            "ผู้เชี่ยวชาญด้านผลิตภัณฑ์": ("- เป็นซอฟต์แวร์โอเพนซอร์ส",),
            "พนักงานขาย": ("ใช้ได้ฟรีค่ะ สนใจทดลองไหมคะ",),
        },
        output="ใช้ได้ฟรีค่ะ สนใจทดลองไหมคะ",
        path=("language", "thai", "answered"),
        shown={"reply": "ราคาเท่าไร"},
    ),
    Script(
        name="an article is published once the editor approves its second draft",
        kind="flow",
        definition_id="content",
        answers={
            "Research Analyst": (_SALT,),
            "Writer": (_FIRST, _SECOND),
            "Editor": (_UNSALTED, "Approved."),
        },
        output=_SECOND,
        path=("research", "writing", "review", "writing", "review", "published"),
        shown={"writing": "Say where the salt comes from.", "review": _SECOND},
    ),
    Script(
        name="an article that is never approved is given up after its rounds",
        kind="flow",
        definition_id="content",
        inputs={"topic": "why the sea is salty", "max_rounds": 3},
        answers={
            "Research Analyst": (_SALT,),
            "Writer": (_FIRST, _FIRST, _SECOND),
            "Editor": (_UNSALTED, "It could be better.", _UNSALTED),
        },
        output=_SECOND,
        path=("research", "writing", "review", "writing", "review", "writing", "review", "unapproved"),
        shown={"writing": "It could be better."},
    ),
    Script(
        name="what the documents hold is answered from them",
        kind="flow",
        definition_id="support",
        answers={"Support dispatcher": ("documentation",), "Support agent": ("A set of documents.",)},
        output="A set of documents.",
        path=("triage", "answering", "answered"),
    ),
    Script(
        name="what the documents do not hold is escalated to a human who accepts the draft",
        kind="flow",
        definition_id="support",
        answers={
            "Support dispatcher": ("documentation",),
            "Support agent": ("Escalate",),
            "Assistant of a support agent": ("We shall look into it.",),
        },
        humans=("",),
        output="We shall look into it.",
        path=("triage", "answering", "escalation", "answered"),
    ),
    Script(
        name="who asks for a human gets one, who writes the reply",
        kind="flow",
        definition_id="support",
        inputs={"question": "I want my money back. Let me talk to a person!"},
        answers={
            "Support dispatcher": ("documentation",),
            "Assistant of a support agent": ("We shall look into it.",),
        },
        humans=("You have it back already.",),
        output="You have it back already.",
        path=("triage", "escalation", "answered"),
    ),
)
