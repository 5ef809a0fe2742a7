"""How a chat becomes the text that a model was trained on: by a checkpoint's own template, or by ChatML.

A template is used by what it puts around the contents. That is found by rendering a chat of marks in their place, and
held against the chat itself as rendered: so ids can be made piece by piece, and still be those of the template.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

from mlagent_jax.errors import UserError

ROLES = ("system", "user", "assistant")
_KINDS_OF_CHATS = 1024  # sequences of roles that are remembered: a server meets any number
Turn = tuple[str, str]  # role and content
Render = Callable[[Sequence[Turn], bool], str]


class ChatTemplateError(UserError):
    """A chat that the template refuses, or a template that chats cannot be encoded by; the message says why."""


class ChatTemplate:
    """Renders chats, and says what lies around their contents.

    render(turns, prompt): the text of a chat and, if `prompt`, the header of the assistant's next turn.
    joined: whether a content and the template's text before it are tokenised as one text, as `apply_chat_template`
        does; our own small tokenizers keep them apart, as their pieces may span lines.
    """

    def __init__(self, render: Render, joined: bool):
        self.render, self.joined = render, joined
        self._around = lru_cache(_KINDS_OF_CHATS)(self._find_around)

    def around(self, roles: Sequence[str], prompt: bool) -> tuple[str, ...]:
        """The template's text before each content, and after the last: one piece more than there are roles.

        Raises ChatTemplateError where it refuses such a chat, or does not show each content once, in order.
        """
        for role in roles:
            if (
                not role.isidentifier()
            ):  # it becomes part of the template's text, where control tokens are read
                raise ChatTemplateError(f"message role {role!r} is no name")
        return self._around(tuple(roles), prompt)

    def fit(self, turns: Sequence[Turn], prompt: bool) -> tuple[tuple[str, ...], list[str]]:
        """`around` these turns, and their contents as the template shows them: as they are, or stripped.

        Raises ChatTemplateError also where it makes something else of a content.
        """
        around = self.around([role for role, _ in turns], prompt)
        contents = [content for _, content in turns]
        text = self.render(turns, prompt)
        for shown in (
            contents,
            [content.strip() for content in contents],
            _stripped_in(text, around, contents),
        ):
            if _interleaved(around, shown) == text:
                return around, shown
        raise ChatTemplateError(
            "the model's chat template changes the contents of this chat (more than stripping them), so that the "
            "tokens to learn from cannot be told in it; use a checkpoint whose template shows them as they are"
        )

    def check_grows(self, roles: Sequence[str]) -> None:
        """Raises ChatTemplateError unless each state is the beginning of the longer chat, as it was sampled from."""
        whole = self.around(roles, False)
        for at, role in enumerate(roles):
            if role == "assistant" and at and self.around(roles[:at], True) != whole[: at + 1]:
                raise ChatTemplateError(
                    f"the model's chat template shows the {at} messages before an answer differently once the answer "
                    f"is there ({self.around(roles[:at], True)[-1]!r} or {whole[at]!r} before it), so what is sampled "
                    "would not be what is trained; use a checkpoint whose template adds to a chat without changing it"
                )

    def _find_around(self, roles: tuple[str, ...], prompt: bool) -> tuple[str, ...]:
        marks = [f"\ue000{number}\ue001" for number in range(len(roles))]
        rest = self.render(list(zip(roles, marks, strict=True)), prompt)
        pieces: list[str] = []
        for role, mark in zip(roles, marks, strict=True):
            before, found, rest = rest.partition(mark)
            if not found:
                raise ChatTemplateError(
                    f"the model's chat template does not show message {len(pieces)} (role {role!r}) after those before "
                    "it; use roles that it knows, in an order that it keeps"
                )
            pieces.append(before)
        pieces.append(rest)
        if any(mark in piece for piece in pieces for mark in marks):
            raise ChatTemplateError("the model's chat template shows a message's content twice")
        return tuple(pieces)


def _render_chatml(turns: Sequence[Turn], prompt: bool) -> str:
    for role, _ in turns:
        if role not in ROLES:
            raise ChatTemplateError(f"message role {role!r} is none of {', '.join(ROLES)}")
    text = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in turns)
    return text + ("<|im_start|>assistant\n" if prompt else "")


def chatml(joined: bool) -> ChatTemplate:
    """`<|im_start|>role\\ncontent<|im_end|>\\n` for each message: Qwen's template, without its default system turn."""
    return ChatTemplate(_render_chatml, joined)


def jinja_template(source: str, tokens: Mapping[str, str]) -> ChatTemplate:
    """A checkpoint's, rendered as `transformers` does. tokens: what it may refer to, such as `bos_token`."""
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    def render(turns: Sequence[Turn], prompt: bool) -> str:
        chat = [{"role": role, "content": content} for role, content in turns]
        try:
            (text,), _ = render_jinja_template(
                conversations=[chat], chat_template=source, add_generation_prompt=prompt, **tokens
            )
        except (TemplateError, TypeError, ValueError, KeyError) as error:
            roles = ", ".join(role for role, _ in turns) or "none"
            raise ChatTemplateError(
                f"the model's chat template refuses a chat of these roles ({roles}): {error}"
            ) from None
        return str(text)

    return ChatTemplate(render, joined=True)


def _interleaved(around: Sequence[str], contents: Sequence[str]) -> str:
    return "".join(piece + content for piece, content in zip(around, [*contents, ""], strict=True))


def _stripped_in(text: str, around: Sequence[str], contents: Sequence[str]) -> list[str]:
    """The contents, of which those that `text` shows so are stripped: a template may do that to some roles only."""
    shown, at = [], 0
    for before, content, after in zip(around, contents, around[1:], strict=False):
        at += len(before)
        whole = text.startswith(content + after, at)
        shown.append(content if whole else content.strip())
        at += len(shown[-1])
    return shown
