"""Which images the publications test on, which frames belong together, and how labels are numbered.

Every table is a fact about public data, with where it was read.
"""

from __future__ import annotations


def names_of(text: str) -> frozenset[str]:
    """The names in a text, between white space."""
    return frozenset(text.split())


# The 100 + 62 test images of the polyp benchmark (Fan et al., PraNet, MICCAI 2020), on which the SliceMamba paper
# reports Kvasir and ClinicDB. Read from the file names of the benchmark's prediction maps: repository
# DengPingFan/PraNet, folders results/PraNet/Kvasir and results/PraNet/CVC-ClinicDB, commits 3cbd18f and e28cb55.
# Training takes the remaining 900 + 550 images together (same repository, issues 41 and 52).
KVASIR_TEST = names_of(
    """
    cju0u82z3cuma0835wlxrnrjv cju15wdt3zla10801odjiw7sy cju16ach3m1da0993r1dq3sn2 cju16whaj0e7n0855q7b6cjkm
    cju17z0qongpa0993de4boim4 cju1amqw6p8pw0993d9gc5crl cju1bm8063nmh07996rsjjemq cju1c3218411b08014g9f6gig
    cju1cbokpuiw70988j4lq1fpi cju1cj3f0qi5n0993ut8f49rj cju1cqc7n4gpy0855jt246k68 cju1ddr6p4k5z08780uuuzit2
    cju1f8w0t65en0799m9oacq0q cju1h89h6xbnx08352k2790o9 cju1hp9i2xu8e0988u2dazk7m cju2hfqnmhisa0993gpleeldd
    cju2hjrqcvi2j0801bx1i6gxg cju2hos57llxm08359g92p6jj cju2hqt33lmra0988fr5ijv8j cju2lberzkdzm09938cl40pog
    cju2mh8t6p07008350e01tx2a cju2nnqrqzp580855z8mhzgd6 cju2np2k9zi3v079992ypxqkn cju2omjpeqj5a0988pjdlb8l1
    cju2osuru0ki00855txo0n3uu cju2pag1f0s4r0878h52uq83s cju2rga4psq9n09881z519xx0 cju2rmd2rsw9g09888hh1efu0
    cju2rqo702wpx0855fn7d5cxh cju2top2ruxxy0988p1svx36g cju2wve9v7esz0878mxsdcy04 cju2y40d8ulqo0993q0adtgtb
    cju2yi9tz8vky0801yqip0xyl cju2yo1j1v0qz09934o0e683p cju2yv4imv6cz099314jveiib cju2zp89k9q1g0855k1x0f1xa
    cju2zwg05a0oy0801yr73ig7g cju30ajhw09sx0988qyahx9s8 cju30gxjq0djk0988jytm49rs cju30j1rgadut0801vuyrsnt8
    cju31w6goazci0799n014ly1q cju32srle1xfq083575i3fl75 cju34m7h536wq0988xz7gx79v cju34xspwzenf0993cyzajv9n
    cju3tp94kfstl08181awh6z49 cju3uhb79gcgr0871orbrbi3x cju3v11mrgwwb0755u242ygye cju3x5u2tiihx0818914gzxy1
    cju3xga12iixg0817dijbvjxw cju3ya7goj6at0818v2l5ay7f cju3ykamdj9u208503pygyuc8 cju40m0rjkpw80871z6n6yg1u
    cju42qet0lsq90871e50xbnuv cju42wamblrqn098798r2yyok cju43jcqim2cp08172dvjvyui cju45rj7ln8980850a7821fov
    cju45ty6zn9oz0850qy4qnck1 cju45v0pungu40871acnwtmu5 cju5cky5xb0ay0801oxet697t cju5clr68b48r0755cmuvponm
    cju5hi52odyf90817prvcwg45 cju5hyi9yegob0755ho3do8en cju5k3j3uf6de0817hszzfr7n cju5o4pk9h0720755lgp9jq8m
    cju5wrrs0m2af0818vmnajbtw cju5x00l6m5j608503k78ptee cju5xjn5mm78b09871spyqhhr cju5xkwzxmf0z0818gk4xabdm
    cju5xq3tdm9fn0987pbedxdg5 cju5y4hgqmk0i08180rjhbwvp cju5yeqiwmkgl0801fzv2douc cju6us80mv1b50871ebyq2wxa
    cju6uy20suzbl0987rzuhz7z9 cju6v1m1xv07w09870ah3njy1 cju6vifjlv55z0987un6y4zdo cju6vrs1ov8cr098788h8gs6j
    cju6x0yqbvxqt0755dhxislgb cju7ajnbo1gvm098749rdouk0 cju7awzmu1ncs0871hziy65zx cju7bd1qu1mx409877xjxibox
    cju7bgnvb1sf808717qa799ir cju7crgxa28550755wbsgqkel cju7da88w2eod0755wejzynvt cju7ddtz729960801uazp1knc
    cju7do8c72dbo0801vxfzxdc4 cju7dymur2od30755eg8yv2ht cju7ecl9i2i060987xawjp4l0 cju7fbndk2sl608015ravktum
    cju7fcgbe2z3p07550vaflqdb cju7fpfzq2wyf0818xxd1oziv cju84hibuktj80871u519o71q cju88cddensj00987788yotmg
    cju88t4fvokxf07558ymyh281 cju88vx2uoocy075531lc63n3 cju8alhigqn2h0801zksudldd cju8aqq8uqmoq0987hphto9gg
    cju8bk8oirjhw0817hgkua2w8 cju8c2rqzs5t80850d0zky5dy cju8d4jgatgpj0871q2ophhkm cju8dqkrqu83i0818ev74qpxq
    """
)
CLINICDB_TEST = names_of(
    """
    14 21 25 31 42 50 52 61 65 66 73 80 89 100 106 119 134 148 154 163 166 171 179 181 185 191 205 240 251 266 279
    287 300 307 349 353 374 381 388 397 400 404 425 429 431 442 453 459 464 474 481 483 492 526 529 545 555 559 561
    569 571 575
    """
)

# First and last frame of the 29 video sequences of CVC-ClinicDB's 612 frames. Read from the list of ranges in
# repository dataset-ninja/cvc-612, src/convert.py, commit e641d7c; a second public converter has the same ranges.
# Neither says which sequences show the same patient.
CLINICDB_SEQUENCES = (
    (1, 25),
    (26, 50),
    (51, 67),
    (68, 78),
    (79, 103),
    (104, 126),
    (127, 151),
    (152, 177),
    (178, 199),
    (200, 205),
    (206, 227),
    (228, 252),
    (253, 277),
    (278, 297),
    (298, 317),
    (318, 342),
    (343, 363),
    (364, 383),
    (384, 408),
    (409, 428),
    (429, 447),
    (448, 466),
    (467, 478),
    (479, 503),
    (504, 528),
    (529, 546),
    (547, 571),
    (572, 591),
    (592, 612),
)

# Synapse multi-organ CT: BTCV numbers of the 12 test cases and the slices of the 18 training cases in TransUNet-style
# work. Read from repository Beckschen/TransUNet, lists/lists_Synapse/test_vol.txt and train.txt (2,211 slices),
# commit ee8acce.
SYNAPSE_TEST = frozenset({1, 2, 3, 4, 8, 22, 25, 29, 32, 35, 36, 38})
SYNAPSE_SLICES = {
    5: 117,
    6: 131,
    7: 163,
    9: 149,
    10: 148,
    21: 143,
    23: 96,
    24: 124,
    26: 131,
    27: 88,
    28: 89,
    30: 153,
    31: 93,
    33: 104,
    34: 98,
    37: 99,
    39: 90,
    40: 195,
}

# BTCV's own numbering (MICCAI 2015 multi-atlas abdomen challenge), as in MONAI's BTCV model card.
BTCV_LABELS = {
    "background": 0,
    "spleen": 1,
    "right_kidney": 2,
    "left_kidney": 3,
    "gallbladder": 4,
    "esophagus": 5,
    "liver": 6,
    "stomach": 7,
    "aorta": 8,
    "inferior_vena_cava": 9,
    "portal_and_splenic_vein": 10,
    "pancreas": 11,
    "right_adrenal_gland": 12,
    "left_adrenal_gland": 13,
}
# The numbers in TransUNet's preprocessed files, in the order of the columns that such work reports. The authors'
# repository does not name them; tljxyys/Perspective-Unet, issue 4, and several data loaders do.
ORGAN_LABELS = {
    "background": 0,
    "aorta": 1,
    "gallbladder": 2,
    "left_kidney": 3,
    "right_kidney": 4,
    "liver": 5,
    "pancreas": 6,
    "spleen": 7,
    "stomach": 8,
}
# BTCV's number -> the organ's number among the eight; the other five become background
TO_EIGHT_ORGANS = {BTCV_LABELS[name]: number for name, number in ORGAN_LABELS.items()}


def clinicdb_sequence(frame: int) -> int:
    """The number, from 1, of the sequence that a frame of CVC-ClinicDB belongs to; ValueError for no such frame."""
    for number, (first, last) in enumerate(CLINICDB_SEQUENCES, start=1):
        if first <= frame <= last:
            return number
    raise ValueError(f"CVC-ClinicDB has the frames 1 to {CLINICDB_SEQUENCES[-1][1]}, there is no frame {frame}")
