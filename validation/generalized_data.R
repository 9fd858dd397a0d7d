# Tables of R packages -> generalized_data/*.csv.gz, plain columns that Python and R read alike.
#
# Usage: Rscript generalized_data.R
# Labels of grouping factors that are numbers in R get a letter in front, so that no reader takes
# them for numbers. Columns with dots are renamed; rows with missing values are left out. `toenail`
# (De Backer et al. 1998, J. Am. Acad. Dermatol. 38; as in the package HSAUR3) is not written here:
# its package is not needed for anything else.

args <- commandArgs(trailingOnly = FALSE)
here <- dirname(normalizePath(sub("^--file=", "", grep("^--file=", args, value = TRUE))))

digits_that_round_trip <- function(x) {
  out <- sprintf("%.15g", x)
  longer <- !is.na(x) & as.numeric(out) != x
  out[longer] <- sprintf("%.17g", x[longer])
  out
}

plain <- function(column) if (is.double(column)) digits_that_round_trip(column) else
  as.character(column)

export <- function(data, name) {
  stopifnot(!anyNA(data))
  text <- lapply(data, plain)
  stopifnot(!any(grepl("[,\"]", unlist(text))))
  con <- gzfile(file.path(here, "generalized_data", paste0(name, ".csv.gz")), "wb", compression = 9)
  on.exit(close(con))
  writeLines(paste(names(data), collapse = ","), con)
  writeLines(do.call(paste, c(unname(text), sep = ",")), con)
}

from <- function(package, name, file = name) {
  place <- new.env()
  data(list = file, package = package, envir = place)
  as.data.frame(get(name, place))
}

label <- function(letter, x) paste0(letter, x)

# pandas takes the text "None" for a missing value.
lower <- function(x) tolower(as.character(x))

# Binary ----------------------------------------------------------------------------------------
d <- from("MASS", "bacteria")
export(data.frame(y = d$y, y01 = as.integer(d$y == "y"), week = d$week, late = as.integer(d$week > 2),
                  trt = d$trt, ID = d$ID, w = 0.5 + (seq_len(nrow(d)) - 1) %% 4 / 2), "bacteria")

d <- from("mlmRev", "Contraception")
export(data.frame(use = d$use, age = d$age, urban = d$urban, livch = d$livch,
                  district = label("d", d$district)), "contraception")

d <- from("lme4", "VerbAgg")
export(data.frame(r2 = d$r2, Anger = d$Anger, Gender = d$Gender, btype = d$btype, situ = d$situ,
                  mode = d$mode, id = label("i", d$id), item = d$item), "verbagg")

d <- from("mlmRev", "guImmun")
export(data.frame(immun = d$immun, kid2p = d$kid2p, mom25p = d$mom25p, ord = label("o", d$ord),
                  ethn = d$ethn, momEd = d$momEd, husEd = d$husEd, momWork = d$momWork,
                  rural = d$rural, pcInd81 = d$pcInd81, mom = label("m", d$mom),
                  comm = label("c", d$comm)), "guimmun")

d <- from("mlmRev", "guPrenat")
export(data.frame(prenat = d$prenat, childAge = label("a", d$childAge), indig = d$indig,
                  momEd = lower(d$momEd), husEd = lower(d$husEd), toilet = lower(d$toilet), pcInd81 = d$pcInd81,
                  ssDist = d$ssDist, mom = label("m", d$mom), cluster = label("c", d$cluster)),
       "guprenat")

d <- from("mlmRev", "s3bbx")
y <- from("mlmRev", "s3bby")
export(data.frame(y = y[[1]], chldcov = d$chldcov, famcov = d$famcov, commcov = d$commcov,
                  family = label("f", d$family), community = label("c", d$community)), "s3bb")

d <- from("geepack", "ohio")
export(data.frame(resp = d$resp, age = d$age, smoke = d$smoke, id = label("c", d$id)), "ohio")

d <- from("geepack", "respiratory")
export(data.frame(outcome = d$outcome, treat = d$treat, sex = d$sex, age = d$age,
                  baseline = d$baseline, visit = d$visit, center = label("c", d$center),
                  id = label(paste0("c", d$center, "p"), d$id)), "respiratory")

d <- from("geepack", "muscatine")
d <- d[!is.na(d$numobese) & d$base_age == 6, ]
export(data.frame(obese = as.integer(d$numobese), gender = d$gender, age = d$age - 8L,
                  id = label("c", d$id)), "muscatine6")

d <- from("nlme", "bdf")
export(data.frame(repeated = as.integer(as.character(d$repeatgr) != "0"), ses = d$ses,
                  minority = d$Minority, sex = label("s", d$sex), iq = d$IQ.verb,
                  school = label("s", d$schoolNR)), "bdf")

d <- from("survival", "retinopathy")
export(data.frame(status = d$status, trt = d$trt, type = d$type, risk = d$risk,
                  id = label("p", d$id)), "retinopathy")

d <- from("carData", "KosteckiDillon")
d <- d[!is.na(d$headache), ]
export(data.frame(headache = d$headache, month = d$time / 30, airq = d$airq,
                  medication = d$medication, hatype = gsub(" ", "_", d$hatype), sex = d$sex,
                  id = label("p", d$id)), "migraine")

d <- from("datasets", "infert")
export(data.frame(case = as.integer(d$case), spontaneous = d$spontaneous, induced = d$induced,
                  age = d$age, stratum = label("s", d$stratum)), "infert")

# Binomial --------------------------------------------------------------------------------------
d <- from("lme4", "cbpp")
export(data.frame(herd = label("h", d$herd), period = label("p", d$period),
                  incidence = as.integer(d$incidence), size = as.integer(d$size),
                  failures = as.integer(d$size - d$incidence), prop = d$incidence / d$size,
                  obs = label("o", seq_len(nrow(d)))), "cbpp")

d <- from("boot", "cane")
export(data.frame(diseased = as.integer(d$r), shoots = as.integer(d$n), block = d$block,
                  variety = label("v", d$var)), "cane")

d <- from("MASS", "OME")
export(data.frame(correct = d$Correct, trials = d$Trials, loud = (d$Loud - 45) / 10, noise = d$Noise,
                  age = d$Age / 12, ID = label("c", d$ID)), "ome")

d <- from("metadat", "dat.bcg")
arm <- function(treated, cases, healthy) data.frame(
  trial = label("t", d$trial), treated = treated, latitude = (d$ablat - 33) / 10, cases = cases,
  healthy = healthy)
export(rbind(arm(1L, d$tpos, d$tneg), arm(0L, d$cpos, d$cneg)), "bcg")

d <- from("datasets", "esoph")
export(data.frame(cases = as.integer(d$ncases), controls = as.integer(d$ncontrols),
                  alcohol = as.integer(d$alcgp), tobacco = as.integer(d$tobgp),
                  age = as.integer(d$agegp), agegp = label("a", d$agegp),
                  cell = label("a", paste(d$agegp, as.integer(d$alcgp), sep = "_"))), "esoph")

# Counts ----------------------------------------------------------------------------------------
d <- from("glmmTMB", "epil2")
export(data.frame(y = as.integer(d$y), trt = d$trt, Base = d$Base, Age = d$Age, Visit = d$Visit,
                  subject = label("s", d$subject), w = 1 + (seq_len(nrow(d)) - 1) %% 3), "epil")

d <- from("lme4", "grouseticks")
export(data.frame(TICKS = as.integer(d$TICKS), YEAR = label("Y", d$YEAR), cHEIGHT = d$cHEIGHT,
                  BROOD = label("B", d$BROOD), INDEX = label("I", d$INDEX),
                  LOCATION = label("L", d$LOCATION)), "grouseticks")

d <- from("glmmTMB", "Owls")
export(d[c("Nest", "FoodTreatment", "SexParent", "ArrivalTime", "SiblingNegotiation", "BroodSize",
           "logBroodSize")], "owls")

d <- from("glmmTMB", "Salamanders")
export(data.frame(count = as.integer(d$count), mined = d$mined, spp = gsub("-", "_", d$spp),
                  cover = d$cover, DOY = d$DOY, site = gsub("-", "_", d$site)), "salamanders")

d <- from("lme4", "Arabidopsis")
export(data.frame(fruits = d$total.fruits, nutrient = label("n", d$nutrient), amd = d$amd,
                  rack = label("r", d$rack), status = gsub("[.]", "_", d$status),
                  gen = label("g", d$gen), popu = label("p", d$popu)), "arabidopsis")

d <- from("mlmRev", "Mmmec")
export(data.frame(deaths = as.integer(d$deaths), expected = d$expected, uvb = d$uvb,
                  nation = gsub("[ .]", "_", d$nation), region = label("r", d$region)), "mmmec")

d <- from("survival", "cgd")
export(data.frame(status = as.integer(d$status), treat = gsub("-", "_", d$treat), age = d$age,
                  inherit = d$inherit, days = d$tstop - d$tstart, id = label("p", d$id),
                  hospital = gsub("[ :]", "_", d$hos.cat)), "cgd")

d <- from("AER", "ShipAccidents")
d <- d[d$service > 0, ]
export(data.frame(incidents = as.integer(d$incidents), service = d$service, type = d$type,
                  built = label("b", substr(d$construction, 1, 4)),
                  period = label("o", substr(d$operation, 1, 4)),
                  obs = label("s", seq_len(nrow(d)))), "ships")

d <- from("AER", "Fatalities")
export(data.frame(fatal = d$fatal, pop = d$pop, year = as.integer(as.character(d$year)) - 1985L,
                  beertax = d$beertax, unemp = d$unemp, state = d$state), "fatalities")

d <- from("datasets", "warpbreaks")
export(data.frame(breaks = as.integer(d$breaks), wool = d$wool, tension = d$tension,
                  loom = label("l", seq_len(nrow(d)))), "warpbreaks")

d <- from("MASS", "quine")
export(data.frame(days = d$Days, eth = d$Eth, sex = d$Sex, lrn = d$Lrn,
                  class = paste0(d$Age, d$Lrn, d$Sex, d$Eth)), "quine")

# Positive and continuous -----------------------------------------------------------------------
d <- from("lme4", "cake")
export(data.frame(replicate = label("r", d$replicate), recipe = d$recipe, angle = d$angle,
                  t10 = (d$temp - 200) / 10), "cake")

d <- from("datasets", "ChickWeight")
export(data.frame(weight = d$weight, week = d$Time / 7, Diet = label("d", d$Diet),
                  Chick = label("c", d$Chick), w = 1 + (seq_len(nrow(d)) - 1) %% 2), "chicks")

d <- from("geepack", "dietox")
export(data.frame(Weight = d$Weight, Time = d$Time, Evit = d$Evit, Cu = d$Cu,
                  Pig = label("p", d$Pig), Litter = label("l", d$Litter)), "dietox")

d <- from("lme4", "sleepstudy")
export(data.frame(Reaction = d$Reaction, Days = d$Days, Subject = label("s", d$Subject)), "sleep")

d <- from("nlme", "Relaxin")
d <- d[d$conc > 0, ]
export(data.frame(cAMP = d$cAMP, lconc = log(d$conc), Run = label("r", d$Run)), "relaxin")

d <- from("nlme", "Machines")
export(data.frame(score = d$score, Machine = d$Machine, Worker = label("w", d$Worker)), "machines")
