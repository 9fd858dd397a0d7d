# Data -> reference_tests.json.gz: coefficient tables, F tests, deletions, backward elimination and
# marginal means by lmerTest, pbkrtest and emmeans.
#
# Usage: OPENBLAS_NUM_THREADS=1 Rscript tests_reference.R [directory of the CSV files in the package]
# Also writes data/ham.csv.gz, data/carrots.csv.gz (lmerTest), data/beets.csv.gz (pbkrtest) and
# data/Oats_missing.csv.gz (Oats_unbalanced without one of its cells).

suppressPackageStartupMessages({
  library(lmerTest)
  library(pbkrtest)
  library(emmeans)
  library(jsonlite)
})
options(contrasts = c("contr.treatment", "contr.treatment"))
emm_options(lmerTest.limit = 1e6, pbkrtest.limit = 2000)

args <- commandArgs(trailingOnly = FALSE)
here <- dirname(normalizePath(sub("^--file=", "", grep("^--file=", args, value = TRUE))))
shipped <- commandArgs(trailingOnly = TRUE)
shipped <- if (length(shipped)) shipped[1] else file.path(here, "..", "lmmsparse", "data")

export <- function(data, name) {
  con <- gzfile(file.path(here, "data", paste0(name, ".csv.gz")), "wb", compression = 9)
  on.exit(close(con))
  names(data) <- gsub(".", "_", names(data), fixed = TRUE)
  write.csv(data, con, row.names = FALSE, quote = FALSE)
}

read <- function(name, factors) {
  path <- c(file.path(shipped, paste0(name, c(".csv.gz", ".csv"))),
            file.path(here, "data", paste0(name, ".csv.gz")))
  data <- read.csv(path[file.exists(path)][1], stringsAsFactors = FALSE, check.names = FALSE)
  for (column in names(factors)) data[[column]] <- factor(data[[column]])
  data
}

export(lmerTest::ham, "ham")
export(lmerTest::carrots, "carrots")
export(pbkrtest::beets, "beets")
oats <- read("Oats_unbalanced", list())
oats$nf <- oats$nitro
export(oats[!(oats$nitro == 0.2 & oats$Variety == "Victory"), ], "Oats_missing")
oats <- read("Oats_unbalanced", list())

# name, data, formula, columns to be factors, options: ml, kr (Kenward-Roger), means, pairs (specs of
# marginal means), at, eliminate (backward elimination), terms (whether there are any to test).
model <- function(name, data, formula, factors = character(), reml = TRUE, kr = TRUE,
                  means = list(), at = list(), large = FALSE, eliminate = FALSE, terms = TRUE)
  list(name = name, data = data, formula = formula, factors = as.list(factors), reml = reml,
       kr = kr, means = means, at = at, large = large, eliminate = eliminate, terms = terms)

models <- list(
  model("cake", "cake", "angle ~ recipe * temperature + (1 | recipe:replicate)",
        c("recipe", "temperature", "replicate"), means = list("recipe", "temperature"), eliminate = TRUE),
  model("cake_slope", "cake", "angle ~ recipe * temp + (1 | recipe:replicate)",
        c("recipe", "replicate"), means = list("recipe"), at = list(temp = 190)),
  model("cake_square", "cake", "angle ~ recipe + temp + I(temp**2) + (1 | recipe:replicate)",
        c("recipe", "replicate"), eliminate = TRUE),
  model("oats", "Oats", "yield ~ Variety * nitro + (1 | Block/Variety)",
        c("Variety", "nitro", "Block"), means = list("nitro", "Variety", c("Variety", "nitro")), eliminate = TRUE),
  model("oats_unbalanced", "Oats_unbalanced", "yield ~ Variety * nitro + (1 | Block/Variety)",
        c("Variety", "nitro", "Block"), means = list("nitro", "Variety", c("Variety", "nitro")), eliminate = TRUE),
  model("oats_unbalanced_ml", "Oats_unbalanced", "yield ~ Variety * nitro + (1 | Block/Variety)",
        c("Variety", "nitro", "Block"), reml = FALSE, kr = FALSE, eliminate = TRUE),
  model("oats_unbalanced_additive", "Oats_unbalanced",
        "yield ~ Variety + nitro + (1 | Block/Variety)", c("Variety", "nitro", "Block"),
        means = list("nitro", "Variety")),
  model("oats_unbalanced_slope", "Oats_unbalanced",
        "yield ~ Variety * nitro + (1 | Block/Variety)", c("Variety", "Block"),
        means = list("Variety")),
  model("oats_no_intercept", "Oats_unbalanced",
        "yield ~ 0 + Variety + nitro + (1 | Block/Variety)", c("Variety", "nitro", "Block"),
        means = list("nitro")),
  model("oats_missing_cell", "Oats_missing", "yield ~ Variety * nitro + (1 | Block/Variety)",
        c("Variety", "nitro", "Block"), kr = FALSE, means = list("Variety", c("Variety", "nitro"))),
  model("sleepstudy", "sleepstudy", "Reaction ~ Days + (Days | Subject)", "Subject", eliminate = TRUE),
  model("sleepstudy_intercept", "sleepstudy", "Reaction ~ Days + (1 | Subject)", "Subject"),
  model("sleepstudy_square", "sleepstudy",
        "Reaction ~ Days + I(Days**2) + (1 | Subject) + (0 + Days | Subject)", "Subject"),
  model("ham", "ham",
        "Informed_liking ~ Product * Information * Gender + (1 | Consumer) + (1 | Product:Consumer)",
        c("Product", "Information", "Gender", "Consumer"),
        means = list("Product", c("Product", "Information")), eliminate = TRUE),
  model("carrots", "carrots", "Preference ~ sens1 * Homesize + sens2 + (1 + sens2 | Consumer)",
        c("Homesize", "Consumer"), means = list("Homesize"), eliminate = TRUE),
  model("beets", "beets", "sugpct ~ block + sow + harvest + (1 | block:harvest)",
        c("block", "sow", "harvest"), means = list("sow", "harvest")),
  model("dietox", "dietox", "Weight ~ Cu * Time + (Time | Pig)", c("Cu", "Pig"),
        means = list("Cu"), eliminate = TRUE),
  model("dietox_factors", "dietox", "Weight ~ Evit * Cu + Time + (1 | Pig)",
        c("Evit", "Cu", "Pig"), means = list("Evit", "Cu"), eliminate = TRUE),
  model("machines", "Machines", "score ~ Machine + (Machine | Worker)", c("Machine", "Worker"),
        means = list("Machine")),
  model("machines_nested", "Machines", "score ~ Machine + (1 | Worker/Machine)",
        c("Machine", "Worker"), means = list("Machine"), eliminate = TRUE),
  model("ergoStool", "ergoStool", "effort ~ Type + (1 | Subject)", c("Type", "Subject"),
        means = list("Type"), eliminate = TRUE),
  model("orthodont", "Orthodont", "distance ~ age * Sex + (age | Subject)", c("Sex", "Subject"),
        means = list("Sex"), eliminate = TRUE),
  model("scotland", "ScotsSec", "attain ~ verbal * sex + (1 | primary) + (1 | second)",
        c("sex", "primary", "second"), kr = FALSE, large = TRUE),
  model("lectures", "InstEval", "y ~ service * dept + (1 | s) + (1 | d)",
        c("service", "dept", "s", "d"), kr = FALSE, large = TRUE),
  model("carrots_all", "carrots",
        "Preference ~ sens1 * Homesize * sens2 + (1 + sens1 + sens2 | Consumer)",
        c("Homesize", "Consumer"), eliminate = TRUE),
  model("dyestuff2", "Dyestuff2", "Yield ~ 1 + (1 | Batch)", "Batch", eliminate = TRUE,
        terms = FALSE),
  model("penicillin", "Penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)",
        c("plate", "sample"), eliminate = TRUE, terms = FALSE),
  model("pastes", "Pastes", "strength ~ 1 + (1 | batch/cask)", c("batch", "cask"),
        eliminate = TRUE, terms = FALSE)
)

table_of <- function(table) {
  frame <- as.data.frame(table)
  list(rows = as.list(rownames(frame)), columns = as.list(frame))
}

specs_of <- function(m, specs, at, ddf) {
  means <- emmeans(m, specs, at = at, lmer.df = ddf)
  as.list(as.data.frame(summary(means))[c("emmean", "SE", "df", "lower.CL", "upper.CL")])
}

pairs_of <- function(m, specs, at, ddf, adjust) {
  means <- emmeans(m, specs, at = at, lmer.df = ddf)
  table <- as.data.frame(summary(pairs(means, adjust = adjust)))
  as.list(table[c("estimate", "SE", "df", "t.ratio", "p.value")])
}

results <- lapply(models, function(entry) {
  message(entry$name)
  data <- read(entry$data, setNames(entry$factors, entry$factors))
  assign("data", data, envir = globalenv())  # step() looks for it there
  formula <- as.formula(gsub("**", "^", entry$formula, fixed = TRUE))
  control <- lmerControl(optimizer = "bobyqa", optCtrl = list(rhoend = 1e-9, maxfun = 1e5),
                         calc.derivs = FALSE)
  m <- eval(bquote(lmer(.(formula), data, REML = .(entry$reml), control = control)))
  out <- entry
  out$levels <- lapply(setNames(entry$factors, entry$factors), function(f) levels(data[[f]]))
  out$criterion <- if (entry$reml) REMLcrit(m) else deviance(m)
  out$coefficients <- table_of(coef(summary(m)))
  if (entry$kr) out$coefficients_kr <- table_of(coef(summary(m, ddf = "Kenward-Roger")))
  if (entry$eliminate) {
    found <- step(m)
    out$step <- list(random = table_of(found$random), fixed = table_of(found$fixed))
  }
  if (!entry$terms) return(out)
  out$anova <- lapply(c("1" = "I", "2" = "II", "3" = "III"),
                      function(type) table_of(anova(m, type = type)))
  out$drop1_F <- table_of(drop1(m))
  if (entry$kr) {
    out$anova_kr <- table_of(anova(m, type = "III", ddf = "Kenward-Roger"))
    out$anova_kr2 <- table_of(anova(m, type = "II", ddf = "Kenward-Roger"))
  }
  if (!entry$large) {
    out$drop1 <- table_of(drop1(as(m, "lmerMod"), test = "Chisq"))
    out$ranova <- table_of(ranova(m))
  }
  out$means <- lapply(entry$means, function(specs) {
    result <- list(specs = as.list(specs),
         satterthwaite = specs_of(m, specs, entry$at, "satterthwaite"),
         tukey = pairs_of(m, specs, entry$at, "satterthwaite", "tukey"),
         holm = pairs_of(m, specs, entry$at, "satterthwaite", "holm"))
    if (entry$kr) result$kenward_roger <- specs_of(m, specs, entry$at, "kenward-roger")
    result
  })
  out
})

con <- gzfile(file.path(here, "reference_tests.json.gz"), "w", compression = 9)
write(toJSON(results, digits = I(12), auto_unbox = TRUE, na = "null", null = "null"), con)
close(con)
