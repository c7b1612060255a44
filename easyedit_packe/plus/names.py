"""Other subjects of the same kind: there an edit would be followed first, so there it has to be kept out.

A model that learns a car's new maker is ready to name makers after other cars, hardly after painters. Which of many
invented names are of the subject's kind is read from the model itself: after what they say of what they are, it goes on
alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..requests import EditRequest
from .contexts import has_subject
from .said_next import said_next

if TYPE_CHECKING:
    from transformers import PreTrainedModel

OF_A_KIND = {
    "politicians": (
        "Gerald Whitcombe, Ana Rezende, Viktor Palinski, Daniel Okoro, Hassan al-Tamimi, Edith Lorne, "
        "Konrad Weiss, Marie Ferrand"
    ),
    "footballers": (
        "Diego Marcelino, Jordan Ashby, Tomas Hruby, Emeka Nwosu, Luca Ferranti, Kevin Aldous, Mateo Ibarra, "
        "Stefan Kjaer"
    ),
    "other athletes": (
        "Derek Lassiter, Mike Brannigan, Tyrone Caldwell, Jari Lehtonen, Bobby Trask, Yuki Sakamoto, Alan McReady, "
        "Petr Novotny"
    ),
    "musicians": (
        "Lena Fairbanks, Giorgio Vantelli, Ludwig Harzmann, Miles Carradine, Earl Whitlock, Anneliese Roth, "
        "Ray Delmonico, Carlos Ubeda"
    ),
    "actors": (
        "Rosalind Peake, Anthony Drayton, Priya Chandran, Helene Marchetti, Jack Sorrel, Kim Dae-won, "
        "Walter Bexley, Ingrid Solheim"
    ),
    "scholars": (
        "Otto Reinhold, Friedrich Lammers, Edwin Carstairs, Leonardo Battisti, Maria Kowalik, Samuel Thackley, "
        "Jean-Pierre Aubert, Arthur Nyland"
    ),
    "writers": (
        "Henry Caldecote, Fyodor Malenkov, Claire Beaumont, Jorge Alvarado, Thomas Wexford, Selma Ekstrand, "
        "William Harrow, Paul Desmarais"
    ),
    "rulers and saints": (
        "Saint Bertram of Lisle, Pope Anselm IV, King Osric II, Sultan Kamal I, Duke Albrecht of Sarn, "
        "Empress Tamara, Bishop Wilfrid, Prince Casimir of Olten"
    ),
    "towns": "Harlow Bay, Westerfield, Brenndorf, San Tadeo, Kolvara, Nether Stowick, Montclaire-sur-Mer, Yamashiro",
    "regions": (
        "Pallavar district, Kastrova Oblast, Duchy of Merano, Alder County, Province of Santa Vela, "
        "Republic of Karelin, West Hollis, Kingdom of Halm"
    ),
    "landscapes": (
        "Mount Corvin, Skarvoy Island, Blackwater Glacier, Cape Ostrand, Lake Tindall, Verra River, Isla Perdida, "
        "Hollis Ridge"
    ),
    "vehicles": (
        "Ardell Coupe 500, Tanaro GT 200, Mercer Falcon, Alvera Spider, Stratford C40, Ranger XT pickup, "
        "Volkner S, Kazami RX250"
    ),
    "aircraft and ships": (
        "Lockwood C-45, Airbow 290, HMS Resolute Star, Boelen 717X, USS Carver, Sikora S-80, Vickland Merlin II, "
        "MS Baltic Queen"
    ),
    "software": (
        "WinDraft Office, PhotoStream 3, Macroflow Server, Bento Mobile, iScribe, OpenLedger, Visual Forge 2010, "
        "Chromelight Browser"
    ),
    "games": (
        "Star Corsairs II, Dragon Realm Online, Super Pixel Kart, Last Odyssey VII, Turbo Racer Zero, "
        "Battlefront Legends, Castle Quest 64, Metal Ranger"
    ),
    "companies": (
        "Harmon Brothers Holdings, Nordbank AG, Pacific Steel Corporation, Tanabe Electric, Bellini Foods, "
        "Unicorp Insurance, Atlas Petroleum, Grupo Solana"
    ),
    "broadcasts": (
        "Channel Nine Gold, The Morning Ledger Show, Radio Five North, Drama Plus, Late Night with Dan Hollis, "
        "Family Harbor, Doctor Midnight, Star Academy"
    ),
    "films": (
        "The Last Orchard, Il Sole Nero, Amar Deewane, La Maison Verte, Night over Lisbon, Das Stille Haus, "
        "Kaadhal Mazhai, Fast Horizon 3"
    ),
    "bands and albums": (
        "The Velvet Lanterns, Iron Choir, Blue Meridian, Kings of Delmar, Songs for Winter, DJ Orbita, "
        "Electric Prophets, The Harmony Sisters"
    ),
    "books and papers": (
        "The Salt Merchant's Daughter, A History of Small Wars, The Evening Courier, Letters to Irene, "
        "Journal of Applied Optics, The Owl and the Clock, Winter's Ledger, Tales of the Lower Sea"
    ),
    "schools and churches": (
        "University of Penbrooke, St. Aldric's Cathedral, Lyceum of Turov, Ashford Business School, "
        "Royal Academy of Marnham, Westbrook High School, Temple of Sarnath, Monastery of San Elio"
    ),
    "buildings": (
        "Palazzo Verdini, Carver Tower, Museum of Modern Craft, Fort Ticonda, Central Hall Stadium, "
        "Hotel Bristol Garden, Wexley Castle, Old Market Bridge"
    ),
    "nature": (
        "common marsh orchid, blue-tailed skink, Velden's disease, gene BRX2, asteroid 4417 Ilse, "
        "potassium stannate, Hartmann syndrome, red river shrimp"
    ),
    "customs": (
        "Old Kareli language, Bengal fish curry, pasta alla Norvina, Tamaric dialect, rice roll, Slavic calendar, "
        "almond cake, Lower Sorven"
    ),
    "events and prizes": (
        "Battle of Harwick, Treaty of Olmsdorf, Lund Prize, 1994 Winter Cup, Siege of Corvara, "
        "Order of the White Rose, Golden Reel Award, Great Fire of Dunmore"
    ),
    "clubs": (
        "FC Dynamo Varna, Real Cordova, Boston Mariners, Chicago Hammers, Rovers F.C., Ice Kings, AS Livorna, "
        "Sydney Hawks"
    ),
}
"""Invented names, eight of each kind. What the kinds are called is for readers."""

OTHERS = tuple(name for names in OF_A_KIND.values() for name in names.split(", "))

WHAT_IT_IS = "{} is a"
"""What is said next names a kind."""

TELLING = 1024
"""So many of the tokens that are said next are looked at: those that are likely after any name."""

TOGETHER = 32
"""Texts in one forward pass: more are no faster, and hold more memory."""


def kinds(model: PreTrainedModel, tok: Any) -> dict[str, Tensor]:
    """What the model says of what all `OTHERS` are: `roots` [N, K], the square roots of chances, and of which `tokens`
    [K] these are."""
    roots = _roots(model, tok, OTHERS)
    tokens = roots.square().mean(0).topk(min(TELLING, roots.shape[1])).indices.sort().values
    return {"tokens": tokens, "roots": roots[:, tokens].contiguous()}


def of_a_kind(
    model: PreTrainedModel, tok: Any, requests: Sequence[EditRequest], known: Mapping[str, Tensor], count: int
) -> list[list[str]]:
    """For each request those `count` of `OTHERS` that are likest to its subject, likest first; none without one.

    Args:
        known: what `kinds` gave.
    """
    found: list[list[str]] = []
    for request in requests:
        names: list[str] = []
        if has_subject(request):
            likeness = known["roots"] @ _roots(model, tok, [request.subject or ""])[0, known["tokens"]]
            ordered = [OTHERS[i] for i in likeness.argsort(descending=True, stable=True).tolist()]
            names = [name for name in ordered if name != request.subject][:count]
        found.append(names)
    return found


def _roots(model: PreTrainedModel, tok: Any, names: Sequence[str]) -> Tensor:
    return said_next(model, tok, [EditRequest(WHAT_IT_IS.format(name), "it", name) for name in names], TOGETHER)
