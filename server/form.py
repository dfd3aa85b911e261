"""A site's form: which fields it has, and what may be in them. `form_model` makes a pydantic model of it.

Knows no HTTP, and nothing of what becomes of a form.
"""

import re
import unicodedata
from collections.abc import Mapping
from datetime import date
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, create_model

from server.i18n import Text
from server.site import FormField, Site, address

Value = str | bool | None


class Form(BaseModel):
    """What every site's form has; `form_model` adds what the site declares. Undeclared fields are dropped."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    email: str
    name: str | None = None

    @property
    def answers(self) -> dict[str, Value]:
        """The declared fields, by their names."""
        return self.model_dump(by_alias=True, exclude={"email", "name"})


def sample(site: Site, form: type[Form], full: bool) -> Form:
    """What somebody might send: with `full` an answer to everything, else to what is required."""
    values: dict[str, object] = {"email": "visitor@example.com", "name": "A Visitor" if full else None}
    for name, field in site.signup.fields.items():
        if full or field.required:
            values[name] = _example(field)
    return form.model_validate(values)


def _example(field: FormField) -> object:
    examples: dict[str, object] = {
        "email": "someone@example.com",
        "tel": "+44 20 7946 0000",
        "number": "3",
        "date": "2026-01-31",
        "checkbox": "on",
    }
    if field.type == "select":
        return field.choices[0]
    return examples.get(field.type, "Some words"[: field.limit])


def _blank_is_absent(value: object) -> object:
    """A form sends an empty field as an empty string: that is no answer, not an answer that is empty."""
    return None if isinstance(value, str) and not value.strip() else value


def _required(value: object) -> object:
    if _blank_is_absent(value) is None:
        raise ValueError(Text("This field is required."))
    return value


# Marks of writing direction: unseen, they come along where a number or a name is pasted, and turn text around.
_DIRECTIONS = dict.fromkeys([0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)])


# Unicode promises that these categories (Cc, Cs, and Zl with Zp) never change.
_CONTROLS = r"\x00-\x1f\x7f-\x9f"
_NOT_IN_LINE = re.compile(rf"[{_CONTROLS}\u2028\u2029]")
_NOT_IN_LINES = re.compile(rf"(?![\t\n])[{_CONTROLS}]")
_SURROGATES = re.compile(r"[\ud800-\udfff]")


def _line(value: str) -> str:
    value = unicodedata.normalize("NFC", value.translate(_DIRECTIONS).strip())
    if _NOT_IN_LINE.search(value):
        raise ValueError(Text("This must be one line, without control characters."))
    return value


def _lines(value: str) -> str:
    # Browsers send a textarea's line breaks as CRLF, and count them as one character (as maxlength does).
    # Form feeds and vertical tabs are line breaks in what is pasted from a PDF or a slide.
    value = re.sub(r"\r\n?|[\v\f]", "\n", unicodedata.normalize("NFC", value.strip()))
    if _NOT_IN_LINES.search(value):
        raise ValueError(Text("This must not hold control characters."))
    return value


def _longest(limit: int, value: str) -> str:
    if len(value) > limit:
        raise ValueError(
            Text("This must have at most {limit} characters; it has {count}.", limit=limit, count=len(value))
        )
    return value


_TOO_LONG = Text("It has more than 254 characters.")

# What people mistype, in the words of the library that checks: these can be said in other languages.
_REASONS: Mapping[str, Text] = {
    str(reason): reason
    for reason in (
        _TOO_LONG,
        Text("An email address must have an @-sign."),
        Text('The email address has the "full-width" at-sign (@) character instead of a regular at-sign.'),
        Text("There must be something before the @-sign."),
        Text("There must be something after the @-sign."),
        Text("The part after the @-sign is not valid. It should have a period."),
        Text("An email address cannot have two periods in a row."),
        Text("An email address cannot have a period immediately before the @-sign."),
        Text("An email address cannot have a period immediately after the @-sign."),
        Text("An email address cannot end with a period."),
    )
}


def _no_address(reason: str) -> Text:
    if known := _REASONS.get(reason):
        return Text("This is not a valid e-mail address. {reason}", reason=known)
    english = f"This is not a valid e-mail address. {reason}"
    return Text("This is not a valid e-mail address. Please check it for typing errors.", english=english)


def _address(value: str) -> str:
    try:
        if len(value.strip()) > 254:  # the check's own refusal would quote all of it
            raise ValueError(_TOO_LONG)
        return address(value.strip())
    except ValueError as error:
        raise ValueError(_no_address(str(error))) from None


def _telephone(value: str) -> str:
    if not re.fullmatch(r"(?=(.*[0-9]){3})[0-9+()./ -]+", value):
        raise ValueError(Text("This is not a telephone number."))
    return value


def _number(value: object) -> object:
    number = str(value).strip()
    if isinstance(value, bool) or not re.fullmatch(
        r"[+-]?([0-9]+([.,][0-9]+)?|[.,][0-9]+)([eE][+-]?[0-9]{1,3})?", number
    ):
        raise ValueError(Text("This is not a number."))
    return number


def _date(value: str) -> str:
    try:
        if not re.fullmatch(r"\d{4}-\d\d-\d\d", value, re.ASCII):
            raise ValueError
        return date.fromisoformat(value).isoformat()
    except ValueError:
        raise ValueError(Text("This is not a date like 2026-01-31.")) from None


def _ticked(value: object) -> object:
    if _blank_is_absent(value) is None:
        return False
    answers = {"on": True, "true": True, "1": True, "yes": True, "off": False, "false": False, "0": False, "no": False}
    return answers.get(value.strip().lower(), value) if isinstance(value, str) else value


def _must_tick(value: bool) -> bool:
    if not value:
        raise ValueError(Text("This must be ticked."))
    return value


def _unicode(value: str) -> str:
    # Half a surrogate pair, which JSON can escape, has no UTF-8: it would raise where it is stored or answered.
    if _SURROGATES.search(value):
        raise ValueError(Text("This holds characters that are not valid."))
    return value


_Text = Annotated[str, StringConstraints(strict=True), AfterValidator(_unicode)]

_CHECKS: Mapping[str, tuple[Any, ...]] = {
    "text": (_Text, AfterValidator(_line)),
    "textarea": (_Text, AfterValidator(_lines)),
    "email": (_Text, AfterValidator(_address)),
    "tel": (_Text, AfterValidator(_line), AfterValidator(_telephone)),
    "number": (_Text, BeforeValidator(_number)),
    "date": (_Text, AfterValidator(_date)),
}


def _annotation(field: FormField) -> Any:
    """The pydantic type of a declared field's value."""
    if field.type == "checkbox":
        ticked = Annotated[bool, BeforeValidator(_ticked)]
        return Annotated[ticked, AfterValidator(_must_tick)] if field.required else ticked
    if field.type == "select":
        base: Any = Literal[field.choices]
    else:
        kind, *checks = _CHECKS[field.type]
        base = kind
        for check in checks:
            base = Annotated[base, check]
        base = Annotated[base, AfterValidator(partial(_longest, field.limit))]
    if field.required:
        return Annotated[base, BeforeValidator(_required)]
    return Annotated[base | None, BeforeValidator(_blank_is_absent)]


def _absent(field: FormField) -> Any:
    if field.required:
        return ...
    return False if field.type == "checkbox" else None


def form_model(site: Site) -> type[Form]:
    """The model of the site's form: what is declared, nothing else. An absent optional field is None or False."""
    email = FormField(type="email", required=True)
    name = FormField(max=100)
    fields: dict[str, Any] = {"email": (_annotation(email), ...), "name": (_annotation(name), None)}
    for key, field in site.signup.fields.items():
        # Behind an alias: a field may be called `copy` or `model_dump`, like something that a model itself has.
        fields[f"field_{key}"] = (_annotation(field), Field(_absent(field), alias=key))
    return create_model(f"Form_{site.slug}", __base__=Form, **fields)
