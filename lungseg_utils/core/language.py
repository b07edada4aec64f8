"""The reader's language: what people read, from a gettext catalogue; plain English while no other is set.

A language is one file, locale/LANGUAGE.po.
"""

import gettext
from pathlib import Path

from lungseg_utils.core.files import InputError

LOCALE = Path(__file__).parents[1] / "locale"
ENGLISH = "en"
LANGUAGES = (ENGLISH, *sorted(path.stem for path in LOCALE.glob("*.po")))

_language, _catalogue = ENGLISH, gettext.NullTranslations()


def check_language(language: str) -> str:
    """The language; InputError unless there is a catalogue of it."""
    if language not in LANGUAGES:
        raise InputError(f"language is {language!r}; expected one of {', '.join(LANGUAGES)}")
    return language


def set_language(language: str) -> None:
    """From now on, this process speaks to its readers in this language.

    Raises InputError for one without a catalogue.
    """
    global _language, _catalogue  # as gettext's own install does for a whole process
    if check_language(language) != _language:
        _language, _catalogue = language, load_catalogue(language)


def load_catalogue(language: str) -> gettext.NullTranslations:
    """A language's texts, as the standard library looks them up."""
    if language == ENGLISH:
        return gettext.NullTranslations()
    import io

    import polib  # only here: English starts without it

    catalogue = polib.pofile(str(LOCALE / f"{language}.po"))
    return gettext.GNUTranslations(io.BytesIO(catalogue.to_binary()))


def language_now() -> str:
    """The language that is set, "en" if none was."""
    return _language


def translate(text: str) -> str:
    """The text in the language that is set; itself where the catalogue has no other. Imported as `_`."""
    return _catalogue.gettext(text) if text else text


def translate_many(one: str, many: str, count: int) -> str:
    """The one or the other text by the count, as the language has it. Imported as `ngettext`."""
    return _catalogue.ngettext(one, many, count)


def marked(text: str) -> str:
    """The text itself, for the catalogues: it is translated where it is shown. Imported as `N_`."""
    return text
