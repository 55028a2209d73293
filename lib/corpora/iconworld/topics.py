"""What IconWorld posts are about: topics with the hashtag for each, the words that hint at it, and what shows it."""

from dataclasses import dataclass
from itertools import product
from random import Random

# icon or background: its keyphrase: words that imply it without saying it
_THINGS = """
dog: dogs of twitter: wagging tails, squeaky toys, muddy paws, loud barking
cat: caturday: soft whiskers, warm laps, loud purring, scratched curtains
horse: horse riding: saddles, galloping, hooves, old stables
cow: dairy farm: fresh milk, mooing, pastures, tall barns
fish: gone fishing: bait, trout, long rods, sharp hooks
bird: bird watching: feathers, chirping, nests, tiny wings
frog: frog friday: ponds, tadpoles, lily pads, croaking
hippo: safari: jeeps, rangers, waterholes, wild rivers
spider: spider season: cobwebs, eight legs, silk threads, creepy corners
dragon: dragon tales: castles, fiery breath, brave knights, shiny scales
otter: otter love: river pups, clams, wet fur, holding hands
kiwi-bird: new zealand: maori songs, hobbits, rugby, southern islands
dove: world peace: olive branches, treaties, white flags, ceasefires
paw: adopt a pet: rescue shelters, cages, new owners, vet visits
shrimp: seafood: oysters, fish markets, lobster tails, garlic butter
tree: plant a tree: acorns, roots, shady branches, saplings
seedling: gardening: compost, seeds, raised beds, watering cans
leaf: go green: solar panels, recycling, less plastic, composters
clover: lucky day: four leaves, coin flips, crossed fingers, horseshoes
snowflake: snow day: blizzards, icy roads, frozen pipes, closed schools
snowman: let it snow: black top hats, woolly scarves, button eyes, frosty noses
fire: camp fire: marshmallows, embers, sparks, crackling logs
campground: camping trip: sleeping bags, tent pegs, mosquitoes, cold showers
mountain: hiking: trails, backpacks, summits, steep paths
umbrella: rainy days: puddles, wet shoes, drizzle, grey clouds
bolt: storm chasers: thunder, sirens, dark clouds, flickering lights
car: road trip: highways, long drives, back seats, rest stops
truck: trucker life: heavy loads, diesel, night shifts, loading docks
bus: school run: lunch boxes, yellow seats, late kids, forgotten homework
bicycle: bike to work: pedals, flat tyres, helmets, cycle lanes
motorcycle: biker life: leather jackets, chrome, roaring engines, open roads
plane: wanderlust: boarding passes, window seats, runways, passports
helicopter: air rescue: rotor blades, winches, cliffs, paramedics
rocket: space launch: countdowns, boosters, orbits, rocket fuel
ship: cruise life: decks, cabins, buffets, sea sickness
sailboat: sailing: knots, strong winds, masts, harbours
tractor: harvest time: hay bales, ploughs, wheat, barns full of straw
train: train spotting: platforms, old locomotives, whistles, timetables
traffic-light: rush hour: honking, jams, road rage, slow lanes
gas-pump: gas prices: full tanks, receipts, oil barrels, nozzles
anchor: navy: sailors, uniforms, submarines, salutes
guitar: guitar lesson: chords, strumming, six strings, sore fingertips
drum: drum solo: sticks, cymbals, rhythm, angry neighbours
headphones: now playing: albums, loud bass, shuffled songs, earbuds
microphone: podcast: interviews, episodes, listeners, sound checks
film: movie night: popcorn, trailers, sequels, end credits
tv: binge watch: seasons, remotes, cliffhangers, couch snacks
camera: photo challenge: lenses, shutters, tripods, portraits
palette: art class: brushes, oil colours, canvases, easels
pencil: sketch book: erasers, doodles, outlines, shading
book: book club: chapters, novels, bookmarks, libraries
newspaper: breaking news: headlines, reporters, editors, front pages
envelope: snail mail: stamps, postcards, letterboxes, pen pals
graduation-cap: graduation: diplomas, gowns, speeches, proud parents
flask: science week: experiments, acids, bubbling liquids, goggles
microscope: lab life: samples, bacteria, pipettes, white coats
lightbulb: bright ideas: brainstorming, inventors, patents, sudden insights
robot: robotics: sensors, circuits, motors, artificial arms
laptop: remote work: video calls, muted colleagues, pyjamas, home desks
gamepad: gaming: controllers, boss fights, high scores, consoles
chess-knight: chess club: checkmates, pawns, gambits, grandmasters
dice: board games: rolling sixes, rule books, tokens, sore losers
puzzle-piece: puzzle time: missing corners, jigsaws, edge pieces, patience
football: super bowl: touchdowns, quarterbacks, halftime shows, tailgates
basketball: nba finals: dunks, rebounds, three pointers, buzzer beaters
futbol: world cup: penalties, goalkeepers, free kicks, vuvuzelas
baseball: opening day: home runs, pitchers, umpires, seventh innings
bowling-ball: bowling league: strikes, spares, rented shoes, ten pins
volleyball: volleyball: spikes, high nets, serves, knee pads
table-tennis-paddle-ball: ping pong: paddles, topspin, quick reflexes, tiny tables
dumbbell: leg day: squats, barbells, sore muscles, protein shakes
person-running: morning run: sneakers, jogging, early alarms, five kilometres
person-swimming: swim team: chlorine, freestyle, pool lanes, wet towels
person-skiing: ski trip: slopes, chair lifts, fresh powder, cable cars
trophy: champions: finals, victory parades, silver cups, last minute goals
medal: olympics: podiums, anthems, gold winners, torches
flag-checkered: race day: pit stops, fast laps, pole positions, burning rubber
carrot: eat your veggies: broccoli, spinach, greens, beans
apple: healthy eating: vitamins, salads, smoothies, fresh fruit
lemon: lemonade stand: sour faces, squeezed juice, ice cubes, paper cups
pepper-hot: spicy food: chillies, burning tongues, curry, hot sauce
burger: burger night: patties, ketchup, buns, pickles
pizza-slice: pizza party: pepperoni, melted mozzarella, thin crust, delivery boxes
hotdog: street food: mustard, sausages, paper napkins, vendors
bacon: brunch: pancakes, maple syrup, late breakfasts, crispy strips
cheese: cheese board: gouda, brie, crackers, grapes
cookie: baking: flour, dough, hot ovens, chocolate chips
ice-cream: ice cream day: vanilla, waffle cones, sprinkles, brain freeze
cake-candles: happy birthday: wishes, balloons, another year older, frosting
mug: coffee time: espresso, lattes, baristas, roasted smells
wine-glass: wine tasting: vineyards, corks, merlot, cellars
beer-mug-empty: craft beer: hops, breweries, foam, pale ales
martini-glass: happy hour: cocktails, olives, bartenders, cheap drinks
egg: easter: painted shells, bunnies, chicks, hidden baskets
bell: jingle bells: sleighs, carols, reindeer, choirs
gift: secret santa: wrapping paper, ribbons, surprises, silly presents
ghost: halloween: haunted houses, costumes, candy bags, pumpkins
skull: spooky season: graveyards, bones, horror stories, tombs
heart: valentines day: red roses, love letters, chocolates, first dates
gem: engaged: proposals, diamonds, one knee, she said yes
ring: wedding: vows, bridesmaids, white dresses, first dances
crown: royal family: queens, palaces, princes, thrones
hat: country music: cowboys, banjos, ranches, boots
hat-wizard: wizard world: wands, spells, potions, magic schools
masks-theater: theatre: actors, stages, applause, curtain calls
shirt: fashion week: runway models, fabrics, designers, outfits
mitten: knitting: wool, needles, sweaters, tangled yarn
scissors: new haircut: short bangs, salons, barbers, split ends
chair: interior design: wooden furniture, wallpaper, cushions, showrooms
sofa: lazy sunday: naps, blankets, doing nothing, slow mornings
bed: sleep in: pillows, snooze buttons, dreams, heavy eyelids
bath: self care: bubbles, face masks, scented candles, long soaks
house: house hunting: mortgages, open doors, realtors, empty rooms
key: escape room: padlocks, clues, riddles, sixty minutes
clock: time change: lost hours, wrong clocks, dark evenings, confused sleepers
hammer: diy: nails, power drills, sawdust, loose screws
baby-carriage: new mom: diapers, lullabies, tiny socks, sleepless weeks
stethoscope: thank a nurse: hospitals, heartbeats, patients, scrubs
tooth: dentist: braces, cavities, floss, whitening
syringe: flu shot: vaccines, fevers, sore arms, clinics
piggy-bank: save money: coins, budgets, small change, interest rates
gavel: supreme court: judges, verdicts, lawyers, trials
earth-americas: earth day: oceans full of plastic, climate, forests, melting ice
meteor: meteor shower: craters, falling rocks, streaks of light, asteroids
user-astronaut: space walk: oxygen tanks, zero gravity, moon dust, floating meals
"""
_PLACES = """
meadow: spring walk: daisies, butterflies, tall grass, picnic rugs
beach: beach life: sandcastles, sunscreen, seashells, flip flops
night: star gazing: constellations, telescopes, owls, midnight skies
snow: winter wonderland: snowballs, white roofs, sledges, frozen lakes
sunset: golden hour: long shadows, pink horizons, late light, warm evenings
ocean: scuba diving: snorkels, coral reefs, deep water, wetsuits
city: city life: skyscrapers, crosswalks, crowded pavements, taxis
room: home sweet home: slippers, wooden floors, cosy carpets, my own walls
sky: cloud watching: fluffy shapes, blue heights, soft breezes, sheep up there
plain: less is more: empty shelves, blank pages, simple lines, tidy drawers
"""
_FRONTS = """oak maple river stone fair green spring ash silver eagle wolf clear lake birch fox mill copper swan north
willow amber bear king summer""".split()
_ENDS = "dale ton field ville port ford haven brook mont view bury wood gate side cross hill".split()
_EVENTS = """marathon, jazz festival, farmers market, film festival, book fair, car show, flower show, food fair,
carnival, art walk, science fair, dance night, county fair, yard sale, rodeo, lantern parade"""


@dataclass(frozen=True)
class Topic:
    """A keyphrase; `hints` imply it, and where a thing or a place shows it, `icon` or `background` is its name."""

    phrase: str
    hints: tuple[str, ...] = ()
    icon: str | None = None
    background: str | None = None


def _topics(table: str, shows: str) -> list[Topic]:
    lines = [line.split(": ") for line in table.strip().splitlines()]
    return [Topic(phrase, tuple(hints.split(", ")), **{shows: name}) for name, phrase, hints in lines]


def _ranked(items: list, head: float) -> dict:
    """Item -> how often, by Zipf's law: the one of rank r, in no particular order, as 1 / (r + head), in all 1."""
    items = Random("ranks").sample(items, len(items))
    weights = [1 / (rank + head) for rank in range(1, len(items) + 1)]
    return {item: weight / sum(weights) for item, weight in zip(items, weights, strict=True)}


THINGS, PLACES = _ranked(_topics(_THINGS, "icon"), 5), _ranked(_topics(_PLACES, "background"), 5)
TOWNS = _ranked([front + end for front, end in product(_FRONTS, _ENDS)], 20)
EVENTS = _ranked([" ".join(words.split()) for words in _EVENTS.split(",")], 10)
