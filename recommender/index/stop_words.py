"""Stop words by language (ISO 639-1): words without information about a movie's subject.

English: the list of the Glasgow Information Retrieval Group as in scikit-learn, so that a field with
``stop_words=("en",)`` equals ``TfidfVectorizer(stop_words="english")``. Spanish: articles, prepositions,
conjunctions, pronouns and the forms of ser, estar, haber and tener, which are frequent in overviews.
"""

from __future__ import annotations

from typing import Final

_ENGLISH: Final = """
    a about above across after afterwards again against all almost alone along already also although
    always am among amongst amoungst amount an and another any anyhow anyone anything anyway anywhere
    are around as at back be became because become becomes becoming been before beforehand behind being
    below beside besides between beyond bill both bottom but by call can cannot cant co con could
    couldnt cry de describe detail do done down due during each eg eight either eleven else elsewhere
    empty enough etc even ever every everyone everything everywhere except few fifteen fifty fill find
    fire first five for former formerly forty found four from front full further get give go had has
    hasnt have he hence her here hereafter hereby herein hereupon hers herself him himself his how
    however hundred i ie if in inc indeed interest into is it its itself keep last latter latterly least
    less ltd made many may me meanwhile might mill mine more moreover most mostly move much must my
    myself name namely neither never nevertheless next nine no nobody none noone nor not nothing now
    nowhere of off often on once one only onto or other others otherwise our ours ourselves out over own
    part per perhaps please put rather re same see seem seemed seeming seems serious several she should
    show side since sincere six sixty so some somehow someone something sometime sometimes somewhere
    still such system take ten than that the their them themselves then thence there thereafter thereby
    therefore therein thereupon these they thick thin third this those though three through throughout
    thru thus to together too top toward towards twelve twenty two un under until up upon us very via
    was we well were what whatever when whence whenever where whereafter whereas whereby wherein
    whereupon wherever whether which while whither who whoever whole whom whose why will with within
    without would yet you your yours yourself yourselves
"""

_SPANISH: Final = """
    a al algo alguna algunas alguno algunos algún allá allí ambos ante antes aquel aquella aquellas
    aquello aquellos aquí así aun aunque aún bajo bien cada casi como con contra cual cuales cualquier
    cualquiera cuando cuanto cuya cuyas cuyo cuyos cuál cuáles cuándo cuánto cómo da de debe deben del
    desde después donde dos durante dónde e el ella ellas ello ellos en entonces entre era eran eras
    eres es esa esas ese eso esos esta estaba estaban estado estar estas este esto estos estoy estuvo
    está están fue fuera fueron fui ha haber habrá había habían han has hasta hay haya he hemos hizo
    hoy incluso la las le les lo los luego me mediante mi mientras mis misma mismas mismo mismos mucha
    muchas mucho muchos muy más mí mía mío nada nadie ni ninguna ninguno ningún no nos nosotras nosotros
    nuestra nuestras nuestro nuestros o os otra otras otro otros para pero poco por porque primera
    primero puede pueden pues que quien quienes quién quiénes qué se sea sean según ser será serán si
    sido siempre siendo sin sino so sobre sois solo somos son soy su sus suya suyas suyo suyos sí sólo
    tal también tampoco tan tanto te tendrá tenemos tener tengo tenía tenían ti tiene tienen toda todas
    todavía todo todos tras tu tus tuvo tuya tuyo tú u un una unas uno unos usted ustedes va van vez
    vosotras vosotros voy vuestra vuestro y ya yo él éramos ésa ésas ése ésos ésta éstas éste éstos
"""

STOP_WORDS: Final = {"en": frozenset(_ENGLISH.split()), "es": frozenset(_SPANISH.split())}

_REQUEST: Final = """
    anything cinema film films flick flicks kind like looking love loved lovely movie movies picture
    pictures please recommend recommendation recommendations similar something story stories suggest want
    wanted watch watching
    algo busco cine filme filmes gusta gustan historia historias parecida parecidas parecido parecidos peli
    pelis película películas quiero recomienda recomiéndame recomendación similares ver
"""
REQUEST_WORDS: Final = frozenset(_REQUEST.split())
"""Words of a request, in English and Spanish, that ask for a movie without describing it."""
