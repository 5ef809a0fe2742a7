"""Chat templates: a checkpoint's own, or ChatML.

Chats are encoded piece by piece, with the same result as the rendered template. For that, a template is reduced to its
delimiters, the text that it puts between the contents. They are found by rendering placeholders instead of contents,
and verified against the rendered chat itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

from mlagent_jax.errors import UserError

ROLES = ("system", "user", "assistant")
_CACHED_ROLE_SEQUENCES = 1024  # a server may receive any number of them
Turn = tuple[str, str]  # role and content
Render = Callable[[Sequence[Turn], bool], str]  # (turns, add_generation_prompt)


class ChatTemplateError(UserError):
    """The template rejects a chat, or cannot be used to encode it. The message says why."""


class ChatTemplate:
    """Renders chats, and finds the delimiters between their contents.

    render(turns, add_generation_prompt): the text of a chat, optionally with the header of the assistant's next turn.
    joined: whether a content is tokenised together with the template's text before it, as `apply_chat_template` does.
        Our own small tokenizers encode them separately because their tokens may span lines.
    """

    def __init__(self, render: Render, joined: bool):
        self.render, self.joined = render, joined
        self._delimiters = lru_cache(_CACHED_ROLE_SEQUENCES)(self._find_delimiters)

    def delimiters(self, roles: Sequence[str], add_generation_prompt: bool) -> tuple[str, ...]:
        """The template's text before each content, and after the last one: one piece more than there are roles.

        Raises ChatTemplateError if it rejects such a chat, or does not contain each content once, in order.
        """
        for role in roles:
            # A role becomes part of the template's text, in which names of control tokens have an effect.
            if not role.isidentifier():
                raise ChatTemplateError(f"message role {role!r} is not an identifier")
        return self._delimiters(tuple(roles), add_generation_prompt)

    def split(self, turns: Sequence[Turn], add_generation_prompt: bool) -> tuple[tuple[str, ...], list[str]]:
        """The delimiters of these turns, and the contents as rendered: unchanged or stripped.

        Raises ChatTemplateError like `delimiters`, and if the template changes a content in any other way.
        """
        delimiters = self.delimiters([role for role, _ in turns], add_generation_prompt)
        contents = [content for _, content in turns]
        text = self.render(turns, add_generation_prompt)
        for rendered in (
            contents,
            [content.strip() for content in contents],
            _strip_where_rendered(text, delimiters, contents),
        ):
            if _interleave(delimiters, rendered) == text:
                return delimiters, rendered
        raise ChatTemplateError(
            "the model's chat template changes the contents of this chat (other than stripping them), so the tokens "
            "to learn from cannot be located in it; use a checkpoint whose template keeps contents unchanged"
        )

    def check_prefix_preserving(self, roles: Sequence[str]) -> None:
        """Raises ChatTemplateError unless every prompt for an answer is a prefix of the chat with that answer."""
        full = self.delimiters(roles, False)
        for at, role in enumerate(roles):
            if role == "assistant" and at and (prompt := self.delimiters(roles[:at], True)) != full[: at + 1]:
                raise ChatTemplateError(
                    f"the model's chat template renders the {at} messages before an answer differently once the answer "
                    f"is there ({prompt[-1]!r} or {full[at]!r} before it), so the tokens to train on would differ from "
                    "those that were sampled; use a checkpoint whose template preserves prefixes"
                )

    def _find_delimiters(self, roles: tuple[str, ...], add_generation_prompt: bool) -> tuple[str, ...]:
        placeholders = [f"\ue000{number}\ue001" for number in range(len(roles))]
        rest = self.render(list(zip(roles, placeholders, strict=True)), add_generation_prompt)
        pieces: list[str] = []
        for role, placeholder in zip(roles, placeholders, strict=True):
            before, found, rest = rest.partition(placeholder)
            if not found:
                raise ChatTemplateError(
                    f"the model's chat template does not show message {len(pieces)} (role {role!r}) after the earlier "
                    "ones; use roles that it knows, in an order that it keeps"
                )
            pieces.append(before)
        pieces.append(rest)
        if any(placeholder in piece for piece in pieces for placeholder in placeholders):
            raise ChatTemplateError("the model's chat template shows a message's content twice")
        return tuple(pieces)


def _render_chatml(turns: Sequence[Turn], add_generation_prompt: bool) -> str:
    for role, _ in turns:
        if role not in ROLES:
            raise ChatTemplateError(f"message role {role!r} is not one of {', '.join(ROLES)}")
    text = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in turns)
    return text + ("<|im_start|>assistant\n" if add_generation_prompt else "")


def chatml(joined: bool) -> ChatTemplate:
    """`<|im_start|>role\\ncontent<|im_end|>\\n` for each message: Qwen's template, without its default system turn."""
    return ChatTemplate(_render_chatml, joined)


def jinja_template(source: str, tokens: Mapping[str, str]) -> ChatTemplate:
    """A checkpoint's template, rendered as in `transformers`.

    tokens: special tokens by the names that the template may use, such as `bos_token`.
    """
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    def render(turns: Sequence[Turn], add_generation_prompt: bool) -> str:
        chat = [{"role": role, "content": content} for role, content in turns]
        try:
            (text,), _ = render_jinja_template(
                conversations=[chat],
                chat_template=source,
                add_generation_prompt=add_generation_prompt,
                **tokens,
            )
        except (TemplateError, TypeError, ValueError, KeyError) as error:
            roles = ", ".join(role for role, _ in turns) or "none"
            raise ChatTemplateError(
                f"the model's chat template rejects a chat of these roles ({roles}): {error}"
            ) from None
        return str(text)

    return ChatTemplate(render, joined=True)


def _interleave(delimiters: Sequence[str], contents: Sequence[str]) -> str:
    return "".join(piece + content for piece, content in zip(delimiters, [*contents, ""], strict=True))


def _strip_where_rendered(text: str, delimiters: Sequence[str], contents: Sequence[str]) -> list[str]:
    """Strips those contents that are stripped in `text`: a template may strip the contents of some roles only."""
    rendered, at = [], 0
    for before, content, after in zip(delimiters, contents, delimiters[1:], strict=False):
        at += len(before)
        is_unchanged = text.startswith(content + after, at)
        rendered.append(content if is_unchanged else content.strip())
        at += len(rendered[-1])
    return rendered
